//! Certificates, a broker that has some, and a client that speaks MQTT 3.1.1 through TLS.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::process::{Broker, Folder, PATIENCE};

/// Signs certificates; the same one for brokers and clients.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of the test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Signed { certificate: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// A client's certificate with so many others between it and this authority, all of them in `certificate`.
    pub fn client_behind(&self, others: usize) -> Signed {
        let mut issuers: Vec<CertifiedIssuer<'static, KeyPair>> = Vec::new();
        for number in 0..others {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let (key, above) = (KeyPair::generate().unwrap(), issuers.last().unwrap_or(&self.issuer));
            let issuer = CertifiedIssuer::signed_by(params, key, above).unwrap();
            issuers.push(issuer);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "deep");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, issuers.last().unwrap_or(&self.issuer)).unwrap();
        let chain: String = issuers.iter().rev().map(|issuer| issuer.pem()).collect();
        Signed { certificate: own.pem() + &chain, key: key.serialize_pem() }
    }

    /// For localhost and 127.0.0.1, with this Common Name.
    pub fn server(&self, name: &str) -> Signed {
        self.sign(|params| {
            params.distinguished_name.push(DnType::CommonName, name);
            let localhost = rcgen::SanType::DnsName("localhost".try_into().unwrap());
            params.subject_alt_names = vec![localhost, rcgen::SanType::IpAddress([127, 0, 0, 1].into())];
        })
    }

    pub fn client(&self, name: &str, serial: u64) -> Signed {
        self.sign(|params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.serial_number = Some(SerialNumber::from(serial));
        })
    }

    /// A list with these serial numbers.
    pub fn revoke(&self, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2044, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A broker with a TLS listener first, and a plain one.
pub struct TlsBroker {
    pub broker: Broker,
    pub authority: Authority,
    pub tls: SocketAddr,
    pub plain: SocketAddr,
}

impl TlsBroker {
    /// With more lines for the TLS listener, and for the broker.
    pub fn start(listener: &str, rest: &str) -> Self {
        let authority = Authority::new();
        let server = authority.server("first");
        Self::start_with(authority, &server, listener, rest)
    }

    /// With more arguments.
    pub fn start_with_arguments(listener: &str, arguments: &[&str]) -> Self {
        let authority = Authority::new();
        let server = authority.server("first");
        Self::start_from(authority, &server, &[], listener, "", arguments)
    }

    pub fn start_with(authority: Authority, server: &Signed, listener: &str, rest: &str) -> Self {
        Self::start_with_files(authority, server, &[], listener, rest)
    }

    /// With more files; `2.pem` is a second certificate with its key.
    pub fn start_with_files(
        authority: Authority,
        server: &Signed,
        files: &[(&str, &str)],
        listener: &str,
        rest: &str,
    ) -> Self {
        Self::start_from(authority, server, files, listener, rest, &[])
    }

    fn start_from(
        authority: Authority,
        server: &Signed,
        files: &[(&str, &str)],
        listener: &str,
        rest: &str,
        arguments: &[&str],
    ) -> Self {
        let folder = Folder::new();
        folder.write("ca.pem", &authority.pem());
        folder.write("broker.crt", &server.certificate);
        folder.write("broker.key", &server.key);
        let mut second = "";
        for (name, text) in files {
            folder.write(name, text);
            second = if *name == "2.pem" { ", \"2.pem\"" } else { second };
        }
        let text = format!(
            "{rest}\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\ntls_certificate_files = [\"broker.crt\"{second}]\n\
             tls_key_files = [\"broker.key\"{second}]\n{listener}\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n"
        );
        let file = folder.write("pantala.toml", &text);
        let mut all = vec!["-c".as_ref(), file.as_os_str(), "--durability".as_ref(), "memory".as_ref()];
        all.extend(arguments.iter().map(std::ffi::OsStr::new));
        let mut broker = Broker::with_arguments(folder, &all);
        let listening = broker.listening_on();
        let [tls, plain] = &listening[..] else { panic!("{listening:?}") };
        let (tls, plain) = (tls.parse().unwrap(), plain.parse().unwrap());
        Self { broker, authority, tls, plain }
    }

    /// Settings of a client that trusts this broker and takes these versions of TLS.
    pub fn trusting_versions(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        config
    }

    /// Settings of a client that trusts this broker.
    pub fn trusting(&self, own: Option<&Signed>) -> ClientConfig {
        trusting(&self.authority, own)
    }

    pub fn connect(&self, own: Option<&Signed>) -> Client {
        Client::open(self.tls, self.trusting(own)).unwrap()
    }

    pub fn plain(&self) -> Client {
        let socket = TcpStream::connect(self.plain).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream: Stream::Plain(socket) }
    }

    /// Replaces a file in one step.
    pub fn replace(&self, name: &str, text: &str) {
        let new = self.broker.folder.write("new", text);
        std::fs::rename(new, self.path(name)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.broker.folder.path(name)
    }
}

pub fn trusting(authority: &Authority, own: Option<&Signed>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.unwrap(), key).unwrap()
        }
    };
    config.resumption = Resumption::in_memory_sessions(4);
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    config
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

pub struct Client {
    stream: Stream,
}

impl Client {
    /// Connects; the handshake may be refused later, with the first answer.
    pub fn open(address: SocketAddr, config: ClientConfig) -> std::io::Result<Self> {
        Self::open_named(address, config, "localhost")
    }

    pub fn open_named(address: SocketAddr, config: ClientConfig, name: &'static str) -> std::io::Result<Self> {
        Self::open_behind(b"", address, config, name)
    }

    /// With these bytes in front of the handshake.
    pub fn open_behind(
        before: &[u8],
        address: SocketAddr,
        config: ClientConfig,
        name: &'static str,
    ) -> std::io::Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        socket.write_all(before)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(name).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(stream)) })
    }

    pub fn tls(&mut self) -> &mut StreamOwned<ClientConnection, TcpStream> {
        match &mut self.stream {
            Stream::Tls(stream) => stream,
            Stream::Plain(_) => panic!("it is a plain one"),
        }
    }

    pub fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Tls(stream) => &stream.sock,
            Stream::Plain(socket) => socket,
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes).unwrap(),
            Stream::Tls(stream) => {
                stream.write_all(bytes).unwrap();
                stream.flush().unwrap();
            }
        }
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.read_exact(bytes),
            Stream::Tls(stream) => stream.read_exact(bytes),
        }
    }

    #[track_caller]
    pub fn expect(&mut self, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        self.read_exact(&mut bytes).unwrap();
        assert!(bytes == expected, "{:02x?}", &bytes[..bytes.len().min(30)]);
    }

    /// The body of the next packet, and its first byte.
    pub fn packet(&mut self) -> (u8, Vec<u8>) {
        let mut byte = [0];
        self.read_exact(&mut byte).unwrap();
        let first = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            self.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.read_exact(&mut body).unwrap();
        (first, body)
    }

    /// Whether the broker closes it, as it should be closed or not.
    pub fn is_closed(&mut self) -> bool {
        match self.read_exact(&mut [0]) {
            Ok(()) => false,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    pub fn connect_mqtt(mut self, client_id: &str) -> Self {
        self.send(&connect(client_id, None));
        self.expect(&[0x20, 2, 0, 0]);
        self
    }

    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut packet = vec![0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8];
        packet.extend_from_slice(filter.as_bytes());
        packet.push(qos);
        self.send(&packet);
        self.expect(&[0x90, 3, 0, 1, qos]);
    }

    /// All that was sent before has been dealt with.
    pub fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        self.expect(&[0xd0, 0]);
    }
}

/// CONNECT of MQTT 3.1.1 with a clean Session, without Keep Alive, and with a Will on this topic.
pub fn connect(client_id: &str, will: Option<&str>) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, if will.is_some() { 6 } else { 2 }, 0, 0];
    for text in [Some(client_id), will, will.map(|_| "gone")].into_iter().flatten() {
        body.extend_from_slice(&[0, text.len() as u8]);
        body.extend_from_slice(text.as_bytes());
    }
    [&[0x10, body.len() as u8][..], &body].concat()
}

/// The same without a Will, with User Name and Password.
pub fn connect_as(client_id: &str, user_name: &str, password: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0xc2, 0, 0];
    for text in [client_id, user_name, password] {
        body.extend_from_slice(&[0, text.len() as u8]);
        body.extend_from_slice(text.as_bytes());
    }
    [&[0x10, body.len() as u8][..], &body].concat()
}

/// PUBLISH, at QoS 1 if it has a Packet Identifier.
pub fn publish(topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend_from_slice(topic.as_bytes());
    body.extend(packet_id.into_iter().flat_map(u16::to_be_bytes));
    body.extend_from_slice(payload);
    let mut packet = vec![if packet_id.is_some() { 0x32 } else { 0x30 }];
    let mut length = body.len();
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}
