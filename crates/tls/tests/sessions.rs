//! Sessions against rustls' own client, byte by byte where it matters.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
#![allow(clippy::print_stderr, reason = "figures are for whoever asks for them")]

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use pantala_tls::{
    ClientCertificates, Configuration, Pem, Progress, Session, Settings, SettingsError, UserNameFrom, Versions,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    SigningKey as _, date_time_ymd,
};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// An authority, and what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

#[derive(Clone)]
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> Pem {
        pem("ca.pem", &self.issuer.pem())
    }

    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Signed { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn server(&self, names: &[&str]) -> Signed {
        self.sign(|params| {
            params.subject_alt_names =
                names.iter().map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap())).collect();
        })
    }

    fn client(&self, name: &str, serial: u64) -> Signed {
        self.sign(|params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.serial_number = Some(SerialNumber::from(serial));
        })
    }

    fn revoke(&self, serials: &[u64]) -> Pem {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2025, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        pem("crl.pem", &params.signed_by(&self.issuer).unwrap().pem().unwrap())
    }
}

fn pem(name: &str, text: &str) -> Pem {
    Pem { name: name.to_owned(), bytes: text.as_bytes().to_vec() }
}

fn settings(signed: &Signed) -> Settings {
    Settings {
        certificates: vec![(pem("broker.crt", &signed.certificate), pem("broker.key", &signed.key))],
        ..Settings::default()
    }
}

/// A client's settings.
struct Client {
    config: ClientConfig,
    name: &'static str,
}

impl Client {
    fn new(trusted: &Authority, versions: Versions, own: Option<&Signed>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.issuer.pem().as_bytes()).unwrap()).unwrap();
        let versions: &[_] = match versions {
            Versions::All => &[&TLS13, &TLS12],
            Versions::V12 => &[&TLS12],
            Versions::V13 => &[&TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                // With whatever certificate: it is for the broker to refuse one.
                let key = default_provider().key_provider.load_private_key(key).unwrap();
                builder
                    .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain.unwrap(), key))))
            }
        };
        config.resumption = Resumption::in_memory_sessions(4);
        Self { config, name: "broker.example" }
    }

    fn connect(&self) -> ClientConnection {
        ClientConnection::new(Arc::new(self.config.clone()), ServerName::try_from(self.name).unwrap()).unwrap()
    }
}

/// Both ends, and what passed between them.
struct Pair {
    client: ClientConnection,
    session: Session,
    /// What the session has understood.
    heard: Vec<u8>,
    progress: Progress,
    /// Most bytes that go to the session at once.
    cut: usize,
    client_failed: Option<rustls::Error>,
}

impl Pair {
    fn new(configuration: &Configuration, client: &Client) -> Self {
        Self {
            client: client.connect(),
            session: Session::new(configuration),
            heard: Vec::new(),
            progress: Progress::Open,
            cut: usize::MAX,
            client_failed: None,
        }
    }

    /// Lets both speak until neither has anything to say.
    fn talk(mut self) -> Self {
        loop {
            let mut to_session = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut to_session).unwrap();
            }
            let mut to_client = Vec::new();
            let cut = self.cut.min(to_session.len().max(1));
            for piece in to_session.chunks_mut(cut) {
                self.progress = self.session.receive(piece, &mut self.heard, &mut to_client);
            }
            self.give(&to_client);
            if to_client.is_empty() && !self.client.wants_write() {
                return self;
            }
        }
    }

    fn give(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            if let Err(error) = self.client.process_new_packets() {
                self.client_failed.get_or_insert(error);
                return;
            }
        }
    }

    fn failure(&self) -> &'static str {
        match self.progress {
            Progress::Failed(failure) => failure.as_str(),
            _ => "",
        }
    }

    #[track_caller]
    fn assert_open(&self) {
        assert_eq!((self.progress, self.session.is_established()), (Progress::Open, true));
        assert!(self.client_failed.is_none(), "{:?}", self.client_failed);
    }
}

#[test]
fn both_versions_and_any_cut() {
    let authority = Authority::new("ca");
    let configuration = settings(&authority.server(&["broker.example"])).build().unwrap();
    for versions in [Versions::V12, Versions::V13] {
        for cut in [1, 3, usize::MAX] {
            let mut pair = Pair::new(&configuration, &Client::new(&authority, versions, None));
            pair.cut = cut;
            // Early words wait in the client until the handshake is over.
            pair.client.writer().write_all(b"hello").unwrap();
            let mut pair = pair.talk();
            pair.assert_open();
            assert_eq!(pair.heard, b"hello");
            let long: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
            pair.client.writer().write_all(&long[..20_000]).unwrap();
            let mut pair = pair.talk();
            assert_eq!(&pair.heard[5..], &long[..20_000]);
            pair.client.send_close_notify();
            let mut pair = pair.talk();
            assert_eq!(pair.progress, Progress::Ended);
            let mut out = Vec::new();
            pair.session.close(&mut out);
            pair.give(&out);
            assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        }
    }
}

#[test]
fn output_is_what_was_sent() {
    let authority = Authority::new("ca");
    let configuration = settings(&authority.server(&["broker.example"])).build().unwrap();
    let mut pair = Pair::new(&configuration, &Client::new(&authority, Versions::All, None)).talk();
    let mut received = Vec::new();
    let mut expected = Vec::new();
    for length in [1, 2, 16_383, 16_384, 16_385, 40_000, 65_536] {
        let bytes: Vec<u8> = (0..length as u32).map(|number| (number * 7) as u8).collect();
        let mut out = Vec::new();
        pair.session.send(&bytes, &mut out);
        // One record at a time, as the client holds no more than it is read.
        for piece in out.chunks(8_000) {
            pair.give(piece);
            let mut taken = Vec::new();
            // It would block where there is no more.
            drop(pair.client.reader().read_to_end(&mut taken));
            received.extend(taken);
        }
        expected.extend(bytes);
    }
    assert!(received == expected);
}

#[test]
fn names_choose_the_certificate() {
    let authority = Authority::new("ca");
    let mut settings = settings(&authority.server(&["broker.example"]));
    let second = authority.server(&["*.other.example", "second.example"]);
    settings.certificates.push((pem("2.crt", &second.certificate), pem("2.key", &second.key)));
    let configuration = settings.build().unwrap();
    for (name, trusted) in [
        ("broker.example", true),
        ("second.example", true),
        ("SECOND.example", true),
        ("a.other.example", true),
        // The first one is for all others, and is not for that name.
        ("a.b.other.example", false),
        ("other.example", false),
    ] {
        let client = Client { name, ..Client::new(&authority, Versions::All, None) };
        let pair = Pair::new(&configuration, &client).talk();
        assert_eq!(pair.client_failed.is_none(), trusted, "{name}: {:?}", pair.client_failed);
        if !trusted {
            assert_eq!(pair.failure(), "TLS: the client does not trust this listener's certificate");
        }
    }
}

#[test]
fn client_certificates() {
    let (authority, clients, stranger) = (Authority::new("ca"), Authority::new("clients"), Authority::new("clients"));
    let sensor = clients.client("sensor-7", 7);
    let expired = clients.sign(|params| {
        params.distinguished_name.push(DnType::CommonName, "old");
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let future = clients.sign(|params| params.not_before = date_time_ymd(3000, 1, 1));
    let for_servers = clients.sign(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    };
    let wanted = ClientCertificates { authorities: vec![clients.pem()], required: true, ..Default::default() };
    let server = settings(&authority.server(&["broker.example"]));
    let required = Settings { client_certificates: Some(wanted.clone()), ..server.clone() }.build().unwrap();
    for versions in [Versions::V12, Versions::V13] {
        let failure = |configuration: &Configuration, own: Option<&Signed>| {
            let pair = Pair::new(configuration, &Client::new(&authority, versions, own)).talk();
            // Whoever is refused is told so.
            assert_eq!(pair.failure().is_empty(), pair.client_failed.is_none());
            pair.failure()
        };
        let pair = Pair::new(&required, &Client::new(&authority, versions, Some(&sensor))).talk();
        pair.assert_open();
        assert_eq!(pair.session.names().unwrap().common_name.unwrap(), "sensor-7");
        assert_eq!(failure(&required, None), "TLS: the client has no certificate, and this listener requires one");
        assert_eq!(failure(&required, Some(&expired)), "TLS: the client's certificate has expired");
        assert!(failure(&required, Some(&future)).contains("not valid yet"));
        assert!(failure(&required, Some(&for_servers)).contains("Extended Key Usage"));
        for other in [&self_signed, &stranger.client("sensor-7", 7)] {
            assert!(failure(&required, Some(other)).contains("an authority that is not in tls_client_ca_files"));
        }
        assert!(failure(&required, Some(&self_signed)).contains("self-signed"));
        let with_usages = |usages: &[KeyUsagePurpose]| clients.sign(|params| params.key_usages = usages.to_vec());
        let for_keys = with_usages(&[KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::ContentCommitment]);
        assert!(failure(&required, Some(&for_keys)).contains("Key Usage without digitalSignature"));
        for usage in [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement] {
            let good = with_usages(&[usage, KeyUsagePurpose::KeyEncipherment]);
            assert_eq!(failure(&required, Some(&good)), "");
        }
        let authority_s = clients.sign(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert!(failure(&required, Some(&authority_s)).contains("that of an authority (CA:TRUE)"));
        let old = clients.old_version(&sensor);
        assert!(failure(&required, Some(&old)).contains("of version 1 of X.509, which is not taken"));

        let optional = ClientCertificates { required: false, ..wanted.clone() };
        let optional = Settings { client_certificates: Some(optional), ..server.clone() }.build().unwrap();
        assert_eq!(failure(&optional, None), "");
        assert_eq!(failure(&optional, Some(&sensor)), "");
        // Who shows one shows a good one.
        assert_eq!(failure(&optional, Some(&expired)), "TLS: the client's certificate has expired");

        let any_date = ClientCertificates { any_date: true, ..wanted.clone() };
        let any_date = Settings { client_certificates: Some(any_date), ..server.clone() }.build().unwrap();
        assert_eq!(failure(&any_date, Some(&expired)), "");
        assert_eq!(failure(&any_date, Some(&future)), "");
        assert!(failure(&any_date, Some(&self_signed)).contains("an authority that is not in tls_client_ca_files"));

        let crl = ClientCertificates { revocation_lists: vec![clients.revoke(&[7])], ..wanted.clone() };
        let crl = Settings { client_certificates: Some(crl), ..server.clone() }.build().unwrap();
        assert_eq!(failure(&crl, Some(&sensor)), "TLS: the client's certificate has been revoked");
        assert_eq!(failure(&crl, Some(&clients.client("sensor-8", 8))), "");
        let other_crl = Authority::new("others").revoke(&[7]);
        let crl = ClientCertificates { revocation_lists: vec![other_crl], ..wanted.clone() };
        let crl = Settings { client_certificates: Some(crl), ..server.clone() }.build().unwrap();
        assert!(failure(&crl, Some(&sensor)).contains("no list of the authority"));

        let named = ClientCertificates { user_name_from: UserNameFrom::CommonName, required: false, ..wanted.clone() };
        let named = Settings { client_certificates: Some(named), ..server.clone() }.build().unwrap();
        assert_eq!(failure(&named, Some(&sensor)), "");
        assert!(failure(&named, None).contains("has no certificate"));
        assert!(failure(&named, Some(&clients.client("*.plant", 9))).contains("wildcard"));
        assert!(failure(&named, Some(&clients.client("a\0b", 9))).contains("control character"));
        assert!(failure(&named, Some(&clients.client("", 9))).contains("no name"));
    }
}

#[test]
fn alpn() {
    let authority = Authority::new("ca");
    let server = settings(&authority.server(&["broker.example"]));
    let configuration =
        Settings { alpn: vec!["mqtt".to_owned(), "http/1.1".to_owned()], ..server.clone() }.build().unwrap();
    let offer = |configuration: &Configuration, protocols: &[&str]| {
        let mut client = Client::new(&authority, Versions::All, None);
        client.config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Pair::new(configuration, &client).talk()
    };
    for (offered, agreed) in [
        (&["mqtt"][..], Some(&b"mqtt"[..])),
        (&["h2", "http/1.1"], Some(b"http/1.1")),
        (&["http/1.1", "mqtt"], Some(b"mqtt")),
        (&[], None),
    ] {
        let pair = offer(&configuration, offered);
        pair.assert_open();
        assert_eq!((pair.session.alpn(), pair.client.alpn_protocol()), (agreed, agreed));
    }
    assert!(offer(&configuration, &["h2"]).failure().contains("tls_alpn"));
    // Where nothing is chosen from, everything is taken.
    offer(&server.build().unwrap(), &["x-amzn-mqtt-ca"]).assert_open();
}

#[test]
fn versions_and_ciphers() {
    let authority = Authority::new("ca");
    let server = settings(&authority.server(&["broker.example"]));
    let refused = "TLS: the client offers no version that this listener takes (tls_versions)";
    for (ours, theirs, expected) in [
        (Versions::V13, Versions::V12, refused),
        (Versions::V12, Versions::V13, refused),
        (Versions::V12, Versions::All, ""),
        (Versions::All, Versions::V12, ""),
    ] {
        let configuration = Settings { versions: ours, ..server.clone() }.build().unwrap();
        let pair = Pair::new(&configuration, &Client::new(&authority, theirs, None)).talk();
        assert_eq!(pair.failure(), expected, "{ours:?} {theirs:?}");
    }
    let suite = "TLS_CHACHA20_POLY1305_SHA256";
    let configuration = Settings { ciphers: vec![suite], ..server.clone() }.build().unwrap();
    let pair = Pair::new(&configuration, &Client::new(&authority, Versions::All, None)).talk();
    let agreed = pair.client.negotiated_cipher_suite().unwrap();
    assert_eq!(format!("{:?}", agreed.suite()), "TLS13_CHACHA20_POLY1305_SHA256");
    // Those of 1.2 are not named, so all of them are there.
    Pair::new(&configuration, &Client::new(&authority, Versions::V12, None)).talk().assert_open();
    // None of this key's kind.
    let configuration = Settings { ciphers: vec!["ECDHE-RSA-AES128-GCM-SHA256"], ..server.clone() }.build().unwrap();
    let pair = Pair::new(&configuration, &Client::new(&authority, Versions::V12, None)).talk();
    assert_ne!(pair.failure(), "");
}

/// Says something in each direction, and looks whether it came.
fn exchange(pair: Pair, number: usize) -> Pair {
    let mut pair = pair;
    let (there, back) = (format!("to the session {number}"), format!("to the client {number}"));
    pair.heard.clear();
    pair.client.writer().write_all(there.as_bytes()).unwrap();
    let mut pair = pair.talk();
    pair.assert_open();
    assert_eq!(pair.heard, there.as_bytes());
    let mut out = Vec::new();
    pair.session.send(back.as_bytes(), &mut out);
    pair.give(&out);
    let mut heard = vec![0; back.len()];
    pair.client.reader().read_exact(&mut heard).unwrap();
    assert_eq!(heard, back.as_bytes());
    pair
}

/// A thread keeps the keys of 512 connections ready, so with more of them each displaces another's; and a connection may be moved to
/// another thread and back.
#[test]
fn keys_that_were_displaced_are_made_ready_again() {
    const PAIRS: usize = 700;
    let authority = Authority::new("ca");
    let configuration = settings(&authority.server(&["broker.example"])).build().unwrap();
    let client = Client::new(&authority, Versions::V13, None);
    let mut pairs: Vec<Pair> = (0..PAIRS).map(|_| Pair::new(&configuration, &client).talk()).collect();
    for round in 0..3 {
        let exchange_all = |pairs: Vec<Pair>| -> Vec<Pair> {
            pairs.into_iter().enumerate().map(|(number, pair)| exchange(pair, number + round * PAIRS)).collect()
        };
        pairs = exchange_all(pairs);
        pairs = std::thread::scope(|scope| scope.spawn(|| exchange_all(pairs)).join().unwrap());
        // The next round has gaps, and other connections.
        let half = pairs.split_off(PAIRS / 2);
        drop(half);
        pairs.extend((PAIRS / 2..PAIRS).map(|_| Pair::new(&configuration, &client).talk()));
    }
}

#[test]
fn every_suite_of_tls_1_3_and_its_new_keys() {
    let authority = Authority::new("ca");
    for suite in ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"] {
        let settings = Settings { ciphers: vec![suite], ..settings(&authority.server(&["broker.example"])) };
        let configuration = settings.build().unwrap();
        let mut pair = Pair::new(&configuration, &Client::new(&authority, Versions::V13, None)).talk();
        for number in 0..4 {
            pair = exchange(pair, number);
            // The session answers with new keys of its own.
            pair.client.refresh_traffic_keys().unwrap();
        }
        let agreed = pair.client.negotiated_cipher_suite().unwrap();
        assert_eq!(format!("{:?}", agreed.suite()), suite.replacen("TLS_", "TLS13_", 1));
        let mut pair = exchange(pair, 4);
        // Any bit of a record matters, that of its header too.
        pair.client.writer().write_all(b"CONNECT").unwrap();
        let mut record = Vec::new();
        pair.client.write_tls(&mut record).unwrap();
        let last = record.len() - 1;
        record[last] ^= 1;
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        assert!(matches!(pair.session.receive(&mut record, &mut heard, &mut out), Progress::Failed(_)), "{suite}");
        assert!(heard.is_empty());
    }
}

/// A record that is too short for a tag, or comes a second time, is an error as well.
#[test]
fn records_are_taken_once_and_whole() {
    let authority = Authority::new("ca");
    let configuration = settings(&authority.server(&["broker.example"])).build().unwrap();
    let connected = || exchange(Pair::new(&configuration, &Client::new(&authority, Versions::V13, None)).talk(), 0);
    let receive = |pair: &mut Pair, mut bytes: Vec<u8>| {
        let mut heard = Vec::new();
        (pair.session.receive(&mut bytes, &mut heard, &mut Vec::new()), heard)
    };
    for length in 0..20_u8 {
        let mut pair = connected();
        let record = [&[0x17, 3, 3, 0, length][..], &vec![0; length.into()]].concat();
        let (progress, heard) = receive(&mut pair, record);
        assert!(matches!(progress, Progress::Failed(_)) && heard.is_empty(), "{length}");
    }
    let mut pair = connected();
    pair.client.writer().write_all(b"once").unwrap();
    let mut record = Vec::new();
    pair.client.write_tls(&mut record).unwrap();
    assert_eq!(receive(&mut pair, record.clone()), (Progress::Open, b"once".to_vec()));
    let (progress, heard) = receive(&mut pair, record);
    assert!(matches!(progress, Progress::Failed(_)) && heard.is_empty());
}

#[test]
fn sessions_are_resumed_until_the_configuration_changes() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let wanted = ClientCertificates { authorities: vec![clients.pem()], required: true, ..Default::default() };
    let mut server = settings(&authority.server(&["broker.example"]));
    server.client_certificates = Some(wanted);
    let sensor = clients.client("sensor-7", 7);
    for versions in [Versions::V12, Versions::V13] {
        let (first, second) = (server.build().unwrap(), server.build().unwrap());
        let client = Client::new(&authority, versions, Some(&sensor));
        for (configuration, resumed) in [(&first, false), (&first, true), (&second, false), (&second, true)] {
            let pair = Pair::new(configuration, &client).talk();
            pair.assert_open();
            assert_eq!(pair.session.is_resumed(), resumed, "{versions:?}");
            assert_eq!(pair.session.names().unwrap().common_name.unwrap(), "sensor-7");
        }
    }
}

#[test]
fn what_is_not_tls_is_told_apart() {
    let authority = Authority::new("ca");
    let configuration = settings(&authority.server(&["broker.example"])).build().unwrap();
    for (bytes, expected) in [
        (&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'][..], "a plain MQTT client"),
        (b"GET /mqtt HTTP/1.1\r\n\r\n", "without TLS"),
        (b"\x00\x00\x00\x00\x00\x00\x00", "not TLS"),
        // A ClientHello of SSL 3, and one of TLS 1.0 with nothing behind its version.
        (&[0x16, 3, 0, 0, 4, 1, 0, 0, 0], "TLS: a message that cannot be read"),
    ] {
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        let progress = Session::new(&configuration).receive(&mut bytes.to_vec(), &mut heard, &mut out);
        let Progress::Failed(failure) = progress else { panic!("{bytes:?}: {progress:?}") };
        assert!(failure.as_str().contains(expected), "{failure}");
        assert!(heard.is_empty());
    }
}

/// The extension of a ClientHello that names the server has a length of its own, and may have anything in it.
#[test]
fn strange_server_names() {
    let authority = Authority::new("ca");
    let configuration = settings(&authority.server(&["broker.example"])).build().unwrap();
    let mut hello = Vec::new();
    Client::new(&authority, Versions::All, None).connect().write_tls(&mut hello).unwrap();
    let at = hello.windows(14).position(|bytes| bytes == b"broker.example").unwrap();
    for (byte, refused) in [(b'\0', true), (0xff, true), (b'*', true), (b'_', false), (b'B', false)] {
        let mut changed = hello.clone();
        changed[at] = byte;
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        let progress = Session::new(&configuration).receive(&mut changed, &mut heard, &mut out);
        assert_eq!(matches!(progress, Progress::Failed(_)), refused, "{byte}: {progress:?}");
        assert!(!out.is_empty(), "there is an answer, or an alert");
    }
    // The longest that a handshake message can have, in as many records as one likes: nothing grows without end.
    let mut session = Session::new(&configuration);
    let mut record = vec![0x16, 3, 1, 0x40, 0];
    record.resize(5 + 0x4000, b'a');
    record[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    let mut rounds = 0;
    while session.receive(&mut record.clone(), &mut heard, &mut out) == Progress::Open {
        rounds += 1;
        assert!(rounds < 100);
        record[5..9].fill(b'a');
    }
}

#[test]
fn what_is_wrong_with_files() {
    let authority = Authority::new("ca");
    let (one, other) = (authority.server(&["a.example"]), authority.server(&["b.example"]));
    let build = |certificate: &str, key: &str| {
        let settings = Settings { certificates: vec![(pem("c", certificate), pem("k", key))], ..Settings::default() };
        settings.build().unwrap_err()
    };
    assert_eq!(Settings::default().build().unwrap_err(), SettingsError::NoCertificate);
    assert_eq!(
        build(&one.certificate, &other.key),
        SettingsError::KeyMismatch { certificate: "c".into(), key: "k".into() }
    );
    assert_eq!(build("", &one.key), SettingsError::Nothing { file: "c".into(), of: "certificate" });
    assert_eq!(build(&one.certificate, ""), SettingsError::Nothing { file: "k".into(), of: "key" });
    let half = &one.certificate[..one.certificate.len() / 2];
    assert_eq!(
        build(half, &one.key),
        SettingsError::NotPem { file: "c".into(), error: "a section does not end".into() }
    );
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_eq!(build(&one.certificate, encrypted), SettingsError::EncryptedKey { file: "k".into() });
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert_eq!(build(&one.certificate, old), SettingsError::EncryptedKey { file: "k".into() });
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(build(junk, &one.key), SettingsError::BadCertificate { .. }));
    let clients = |clients: ClientCertificates| {
        Settings { client_certificates: Some(clients), ..settings(&one) }.build().unwrap_err()
    };
    assert!(matches!(clients(ClientCertificates::default()), SettingsError::Refused(_)));
    let empty = ClientCertificates { authorities: vec![pem("a", "")], ..Default::default() };
    assert_eq!(clients(empty), SettingsError::Nothing { file: "a".into(), of: "certificate" });
    let no_list = ClientCertificates {
        authorities: vec![authority.pem()],
        revocation_lists: vec![pem("r", "")],
        ..Default::default()
    };
    assert_eq!(clients(no_list), SettingsError::Nothing { file: "r".into(), of: "list of revoked certificates" });
}

/// One object in DER: its tag, and what is in it.
fn tlv(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (from, length) = match der[1] {
        short @ ..0x80 => (2, usize::from(short)),
        long => {
            let count = usize::from(long & 0x7f);
            (2 + count, der[2..2 + count].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
    };
    (der[0], &der[from..from + length], &der[from + length..])
}

fn sequence(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16).to_be_bytes();
    // In as few bytes as there can be.
    let length = match length {
        [0, short @ ..0x80] => vec![short],
        [0, long] => vec![0x81, long],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag], &length[..], content].concat()
}

/// The fields of what is signed, without those that `drop` names by their position and tag.
fn signed_without(der: &[u8], drop: impl Fn(usize, u8) -> bool) -> Vec<u8> {
    let (_, signed, _) = tlv(tlv(der).1);
    let (mut rest, mut kept) = (signed, Vec::new());
    for at in 0.. {
        if rest.is_empty() {
            break;
        }
        let (tag, _, after) = tlv(rest);
        if !drop(at, tag) {
            kept.extend_from_slice(&rest[..rest.len() - after.len()]);
        }
        rest = after;
    }
    sequence(0x30, &kept)
}

impl Authority {
    /// Signs what is to be signed, with the algorithm's name that the authority's other signatures have.
    fn seal(&self, signed: &[u8], like: &[u8]) -> Vec<u8> {
        let (_, _, after_signed) = tlv(tlv(like).1);
        let (_, _, after_algorithm) = tlv(after_signed);
        let algorithm = &after_signed[..after_signed.len() - after_algorithm.len()];
        let signature = [&[0], &self.issuer.key().sign(signed).unwrap()[..]].concat();
        sequence(0x30, &[signed, algorithm, &sequence(0x03, &signature)].concat())
    }

    /// The same as version 1 of X.509, as `openssl x509 -req` makes it: without version and extensions.
    fn old_version(&self, new: &Signed) -> Signed {
        let der = CertificateDer::from_pem_slice(new.certificate.as_bytes()).unwrap();
        let signed = signed_without(&der, |_, tag| matches!(tag, 0xa0 | 0xa3));
        Signed { certificate: written("CERTIFICATE", &self.seal(&signed, &der)), key: new.key.clone() }
    }
}

/// PEM of DER.
fn written(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for (at, three) in der.chunks(3).enumerate() {
        let number = three.iter().chain([&0, &0]).take(3).fold(0, |number, byte| number << 8 | u32::from(*byte));
        for digit in 0..4 {
            let value = (number >> (18 - 6 * digit)) & 0x3f;
            text.push(if digit <= three.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
        if at % 16 == 15 {
            text.push('\n');
        }
    }
    text + &format!("\n-----END {label}-----\n")
}

/// Takes every certificate, as a client does that was told so.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Mosquitto's own page makes a certificate of version 1, and it was refused at the start although a broker never looks into it.
#[test]
fn a_listener_may_have_a_certificate_of_version_1() {
    let authority = Authority::new("ca");
    let old = authority.old_version(&authority.server(&["broker.example"]));
    let configuration = settings(&old).build().unwrap();
    for versions in [Versions::V12, Versions::V13] {
        let mut client = Client::new(&authority, versions, None);
        client.config.dangerous().set_certificate_verifier(Arc::new(AnyServer));
        let pair = Pair::new(&configuration, &client).talk();
        pair.assert_open();
        let shown = pair.client.peer_certificates().unwrap();
        assert_eq!(shown, [CertificateDer::from_pem_slice(old.certificate.as_bytes()).unwrap()]);
    }
    let other = authority.server(&["broker.example"]);
    let mismatch = Signed { key: other.key, ..old };
    assert_eq!(
        settings(&mismatch).build().unwrap_err(),
        SettingsError::KeyMismatch { certificate: "broker.crt".into(), key: "broker.key".into() }
    );
}

/// An authority that another one has signed.
fn intermediate(root: &Authority, name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    Authority { issuer: CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root.issuer).unwrap() }
}

/// `certfile` with the certificate alone and `cafile` with what is above it, as cert.pem and chain.pem of Let's Encrypt: OpenSSL sends both,
/// and we sent the first alone, which no client could verify.
#[test]
fn a_chain_is_completed_from_the_authorities_at_hand() {
    let root = Authority::new("root");
    let (upper, stranger) = (intermediate(&root, "upper"), intermediate(&Authority::new("other"), "lower"));
    let lower = intermediate(&upper, "lower");
    let leaf = lower.sign(|params| {
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![rcgen::SanType::DnsName("broker.example".try_into().unwrap())];
    });
    let client = Client::new(&root, Versions::All, None);
    let shown = |settings: Settings| {
        let pair = Pair::new(&settings.build().unwrap(), &client).talk();
        let shown = pair.client.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
        (pair.client_failed.is_none(), shown.len())
    };
    assert!(!shown(settings(&leaf)).0);
    // One of the same name with another key is not the issuer, and the root is not sent.
    let files = vec![stranger.pem(), root.pem(), pem("both.pem", &(upper.issuer.pem() + &lower.issuer.pem()))];
    let completed = Settings { chain_certificates: files.clone(), ..settings(&leaf) };
    assert_eq!(shown(completed.clone()), (true, 3));
    // What the file itself has is not sent twice, and what is missing above it comes behind.
    let half = Signed { certificate: leaf.certificate.clone() + &lower.issuer.pem(), ..leaf.clone() };
    assert_eq!(shown(Settings { chain_certificates: files.clone(), ..settings(&half) }), (true, 3));
    // The authorities of clients do the same.
    let clients = ClientCertificates { authorities: files, ..ClientCertificates::default() };
    assert_eq!(shown(Settings { client_certificates: Some(clients), ..settings(&leaf) }), (true, 3));
    // What is no certificate is skipped.
    let junk = vec![pem("junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")];
    assert!(!shown(Settings { chain_certificates: junk, ..settings(&leaf) }).0);
    // An authority that vouches for itself is not sent.
    let direct = root.server(&["broker.example"]);
    assert_eq!(shown(Settings { chain_certificates: vec![root.pem()], ..settings(&direct) }), (true, 1));
}

#[test]
fn lists_of_version_1_are_named_with_what_helps() {
    let authority = Authority::new("ca");
    let one = authority.server(&["a.example"]);
    let new = authority.revoke(&[7]);
    let der = CertificateRevocationListDer::from_pem_slice(&new.bytes).unwrap();
    let signed = signed_without(&der, |at, tag| at == 0 || tag == 0xa0);
    let old = pem("old.crl", &written("X509 CRL", &authority.seal(&signed, &der)));
    let clients = ClientCertificates {
        authorities: vec![authority.pem()],
        revocation_lists: vec![new, old],
        ..ClientCertificates::default()
    };
    let error = Settings { client_certificates: Some(clients), ..settings(&one) }.build().unwrap_err().to_string();
    assert!(
        error.starts_with("old.crl has a list of revoked certificates that cannot be used: it is of version 1"),
        "{error}"
    );
    assert!(error.contains("crlnumber"), "{error}");
}

#[test]
fn until_when_certificates_are_valid() {
    let authority = Authority::new("ca");
    let signed = authority.sign(|params| {
        params.distinguished_name.push(DnType::CommonName, "broker");
        params.not_after = date_time_ymd(2030, 1, 1);
    });
    let configuration = settings(&signed).build().unwrap();
    assert_eq!(configuration.certificates[0].not_after, 1_893_456_000);
    assert_eq!(configuration.certificates[0].file, "broker.crt");
    // The rest of the chain has an end, too.
    let mut settings = settings(&signed);
    let sooner = authority.sign(|params| params.not_after = date_time_ymd(2029, 1, 1));
    settings.certificates[0].0.bytes.extend_from_slice(sooner.certificate.as_bytes());
    assert!(settings.build().unwrap().certificates[0].not_after < 1_893_456_000);
}

/// What an idle session holds, as far as Rust's allocator knows; aws-lc has a few words of its own.
#[test]
fn an_idle_session_is_small() {
    let authority = Authority::new("ca");
    let configuration = settings(&authority.server(&["broker.example"])).build().unwrap();
    for versions in [Versions::V12, Versions::V13] {
        let client = Client::new(&authority, versions, None);
        // What is allocated once is there already.
        Pair::new(&configuration, &client).talk().assert_open();
        let mut kept = None;
        let (mut to_client, mut to_session, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        to_client.reserve(100_000);
        to_session.reserve(100_000);
        let mut client = client.connect();
        let mut step = |kept: &mut Option<Session>| {
            to_session.clear();
            to_client.clear();
            while client.wants_write() {
                client.write_tls(&mut to_session).unwrap();
            }
            let session = kept.as_mut().unwrap();
            let info = allocation_counter::measure(|| {
                session.receive(&mut to_session, &mut heard, &mut to_client);
            });
            let mut rest = &to_client[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
            info.bytes_current
        };
        let begun = allocation_counter::measure(|| kept = Some(Session::new(&configuration)));
        let mut bytes = begun.bytes_current;
        for _ in 0..4 {
            bytes += step(&mut kept);
        }
        assert!(kept.unwrap().is_established());
        eprintln!("{versions:?}: {bytes} bytes");
        assert!(bytes <= 4_096, "{versions:?}: {bytes} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever comes, at whatever moment of a handshake, cut anywhere: an end and no panic, and nothing is taken for MQTT.
    #[test]
    fn any_bytes(
        flip in 0_usize..1_500,
        bytes in proptest::collection::vec(any::<u8>(), 1..40),
        cut in 1_usize..2_000,
        versions in prop_oneof![Just(Versions::V12), Just(Versions::V13)],
    ) {
        let authority = Authority::new("ca");
        let configuration = settings(&authority.server(&["broker.example"])).build().unwrap();
        let client = Client::new(&authority, versions, None);
        let mut connection = client.connect();
        let mut session = Session::new(&configuration);
        let (mut heard, mut at) = (Vec::new(), 0);
        for _ in 0..4 {
            let (mut to_session, mut to_client) = (Vec::new(), Vec::new());
            while connection.wants_write() {
                connection.write_tls(&mut to_session).unwrap();
            }
            for (offset, byte) in bytes.iter().enumerate() {
                if let Some(place) = (flip + offset).checked_sub(at).and_then(|place| to_session.get_mut(place)) {
                    *place ^= byte;
                }
            }
            at += to_session.len();
            for piece in to_session.chunks_mut(cut) {
                session.receive(piece, &mut heard, &mut to_client);
            }
            let mut rest = &to_client[..];
            while !rest.is_empty() && connection.read_tls(&mut rest).is_ok() {
                if connection.process_new_packets().is_err() {
                    break;
                }
            }
        }
        let mut junk = bytes.clone();
        session.receive(&mut junk, &mut heard, &mut Vec::new());
        session.send(b"anything", &mut Vec::new());
        session.close(&mut Vec::new());
        prop_assert!(heard.is_empty());
    }
}
