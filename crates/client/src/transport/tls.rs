//! TLS by rustls.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, KeyLog, RootCertStore, SignatureScheme,
};

use super::{ClientCertificate, ConnectError, Roots, TlsOptions, TlsVersions, Verification};
use crate::client::BoxedStream;

/// What rustls needs, from what was asked. `websocket` has HTTP/1.1 offered where nothing else is.
pub(super) fn config(options: &TlsOptions, websocket: bool) -> Result<Arc<ClientConfig>, ConnectError> {
    let provider = Arc::new(default_provider());
    let versions: &[_] = match options.versions {
        TlsVersions::All => &[&TLS13, &TLS12],
        TlsVersions::V12 => &[&TLS12],
        TlsVersions::V13 => &[&TLS13],
    };
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).map_err(wrong)?;
    let verifier: Arc<dyn ServerCertVerifier> = match options.verification {
        Verification::Nothing => Arc::new(TrustAnybody { provider }),
        verification => {
            let roots = Arc::new(roots(&options.roots)?);
            let web = WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(wrong)?;
            if verification == Verification::AnyName { Arc::new(AnyName { web }) } else { web }
        }
    };
    // Ours are the standard's checks, less what was asked to be left out.
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &options.client_certificate {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate { certificate, key }) => {
            let chain = certificates(certificate)?;
            if chain.is_empty() {
                return Err(wrong(format!("{} has no certificate", certificate.display())));
            }
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| wrong(format!("{} has no key that can be used: {error}", key.display())))?;
            builder.with_client_auth_cert(chain, key).map_err(wrong)?
        }
    };
    config.alpn_protocols = options.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
    if config.alpn_protocols.is_empty() && websocket {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    if let Some(path) = &options.key_log {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        // Who has it can read everything.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path);
        let file = file.map_err(|error| wrong(format!("cannot write {}: {error}", path.display())))?;
        config.key_log = Arc::new(KeyLogFile { file: Mutex::new(file) });
    }
    Ok(Arc::new(config))
}

fn wrong(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::TlsOptions(error.to_string())
}

fn roots(roots: &Roots) -> Result<RootCertStore, ConnectError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(wrong("this system names no certificate authorities; name a file with them"));
            }
        }
        Roots::Pem(text) => {
            for certificate in CertificateDer::pem_slice_iter(text) {
                store.add(certificate.map_err(wrong)?).map_err(wrong)?;
            }
            if store.is_empty() {
                return Err(wrong("the text of the certificate authorities has no certificate"));
            }
        }
        Roots::Files(paths) => {
            for path in paths {
                if path.is_dir() {
                    let entries = fs::read_dir(path).map_err(|error| unreadable(path, error))?;
                    // A directory may hold other things, too, and the same certificate twice, by link.
                    for entry in entries.flatten() {
                        let certificates = certificates(&entry.path()).unwrap_or_default();
                        store.add_parsable_certificates(certificates);
                    }
                } else {
                    for certificate in certificates(path)? {
                        store.add(certificate).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
                    }
                }
            }
            if store.is_empty() {
                let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                return Err(wrong(format!("{} has no certificate", names.join(", "))));
            }
        }
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let pem = fs::read(path).map_err(|error| unreadable(path, error))?;
    let parsed = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>();
    parsed.map_err(|error| wrong(format!("{} is not PEM: {error}", path.display())))
}

fn unreadable(path: &Path, error: std::io::Error) -> ConnectError {
    wrong(format!("cannot read {}: {error}", path.display()))
}

pub(super) async fn connect(
    stream: BoxedStream,
    config: Arc<ClientConfig>,
    host: &str,
) -> Result<BoxedStream, ConnectError> {
    let failed = |error: String| ConnectError::Tls { host: host.to_owned(), error };
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| failed("that is no name for a certificate".to_owned()))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    Ok(Box::new(stream.map_err(|error| failed(in_words(&error)))?))
}

/// What users can do something about, in words.
fn in_words(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(cause)) => match cause {
            // A signature is wrong, too, where two authorities have the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the broker's certificate is from an authority that is not trusted here".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the broker's certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the broker's certificate is not valid yet; is the clock right?".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the broker's certificate is for another name".to_owned()
            }
            // What it is exactly is not told by type.
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "the broker's certificate is one of an authority (CA:TRUE), which no server may use; it needs another one, \
                 with CA:FALSE"
                    .to_owned()
            }
            other => format!("the broker's certificate is not accepted: {other}"),
        },
        Some(error) => error.to_string(),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the broker closed the connection; does it speak TLS on this port?".to_owned()
        }
        None => error.to_string(),
    }
}

/// Checks all but the name.
#[derive(Debug)]
struct AnyName {
    web: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.web.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: everything else was right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.web.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.web.supported_verify_schemes()
    }
}

/// Checks nothing but that the other side has the key of its certificate.
#[derive(Debug)]
struct TrustAnybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Keys as Wireshark reads them.
#[derive(Debug)]
struct KeyLogFile {
    file: Mutex<File>,
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection is worth more than a line about it.
        drop(file.write_all(line.as_bytes()));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
