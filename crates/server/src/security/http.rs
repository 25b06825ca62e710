//! Asking HTTP services: an agent with time-outs, and nothing that follows redirects or proxies.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::http::Uri;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use pantala_identity::http::ANSWER_BYTES_MAX;

use crate::file;

/// The longest file with certificates of authorities.
const CA_FILE_BYTES_MAX: u64 = 64 << 20;
/// The longest key set that is read, in bytes.
const KEY_SET_BYTES_MAX: usize = 1 << 20;
/// Longer ones are cut off by nobody: they are refused.
const HEADER_BYTES_MAX: usize = 16_384;

/// Whose word is taken for who a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Nobody's: it is asked without TLS.
    Nobody,
    /// That of these authorities.
    Of(Vec<CertificateDer<'static>>),
}

impl Roots {
    /// Those of a file in place of the system's, as far as the URL asks for some.
    ///
    /// # Errors
    /// What is wrong with the certificates, or that the system has none.
    pub fn read(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        if url.starts_with("https://") { Ok(Self::Of(roots(ca_file)?)) } else { Ok(Self::Nobody) }
    }
}

/// Asks one service.
pub(super) struct Caller {
    agent: ureq::Agent,
    uri: Uri,
    authorization: Option<String>,
}

// By hand: URL and header may hold secrets.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller(…)")
    }
}

impl Caller {
    /// One that waits for an answer no longer than `timeout`, from looking up the name to the last byte.
    ///
    /// # Errors
    /// That it is no URL, without saying it.
    pub fn new(
        url: &str,
        timeout: Duration,
        authorization: Option<String>,
        roots: &Roots,
        requests_max: usize,
    ) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "it is no URL that could be asked".to_owned())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if let Roots::Of(roots) = roots {
            let roots = roots.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
            tls = tls.root_certs(RootCerts::Specific(Arc::new(roots)));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_response_header_size(HEADER_BYTES_MAX)
            .max_idle_connections(requests_max)
            .max_idle_connections_per_host(requests_max)
            .user_agent(concat!("pantala/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build());
        Ok(Self { agent: config.build().new_agent(), uri, authorization })
    }

    /// Posts a body; the status and the body of the answer.
    ///
    /// # Errors
    /// Why there is no answer, without the URL.
    pub fn post(&self, content_type: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let mut request = self.agent.post(&self.uri).header(CONTENT_TYPE, content_type);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer = request.send(body).map_err(|error| why(&error))?;
        // One byte more than may be, so that what is too long is known to be.
        read(answer, ANSWER_BYTES_MAX + 1)
    }

    /// Gets the key set.
    ///
    /// # Errors
    /// Why there is none, without the URL.
    pub fn get(&self) -> Result<Vec<u8>, String> {
        let answer = self.agent.get(&self.uri).call().map_err(|error| why(&error))?;
        match read(answer, KEY_SET_BYTES_MAX)? {
            (200, body) => Ok(body),
            (status, _) => Err(format!("status {status}")),
        }
    }
}

fn read(mut answer: ureq::http::Response<ureq::Body>, bytes_max: usize) -> Result<(u16, Vec<u8>), String> {
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(bytes_max as u64).read_to_vec();
    Ok((status, body.map_err(|error| why(&error))?))
}

/// Why there is no answer, without the URL.
fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) => "it is no URL that could be asked".to_owned(),
        other => other.to_string(),
    }
}

fn roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<CertificateDer<'static>> = match ca_file {
        Some(path) => {
            let wrong = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
            let text = file::read(path, CA_FILE_BYTES_MAX).map_err(|error| wrong(&error))?;
            if text.len() as u64 > CA_FILE_BYTES_MAX {
                return Err(wrong(&format_args!("it is longer than {CA_FILE_BYTES_MAX} bytes")));
            }
            let found = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>();
            found.map_err(|error| wrong(&error))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    if found.is_empty() {
        return Err("there are no certificates of authorities to trust; http_ca_file names a file with some".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, Stream};

    use super::*;

    /// A service that answers one request over TLS, if its certificate is trusted. Returns its URL and its certificate.
    fn service() -> (String, String) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("https://localhost:{}/auth", listener.local_addr().unwrap().port());
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (mut socket, mut connection) =
                    (socket.unwrap(), ServerConnection::new(Arc::new(config.clone())).unwrap());
                let mut stream = Stream::new(&mut connection, &mut socket);
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\nbody") {
                    let mut buffer = [0; 1_024];
                    match stream.read(&mut buffer) {
                        Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                        _ => break,
                    }
                }
                // A client that does not trust us is gone.
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"));
                drop(stream.flush());
            }
        });
        (url, cert.pem())
    }

    #[test]
    fn a_service_behind_tls_is_asked_if_its_certificate_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let (url, pem) = service();
        let (_, other) = service();
        let file = folder.path().join("ca.pem");
        let ask = |pem: &str| {
            fs::write(&file, pem).unwrap();
            let roots = Roots::read(&url, Some(&file)).unwrap();
            let caller = Caller::new(&url, Duration::from_secs(10), None, &roots, 1).unwrap();
            caller.post("text/plain", b"body")
        };
        assert_eq!(ask(&pem), Ok((200, b"{}".to_vec())));
        let error = ask(&other).unwrap_err();
        assert!(error.contains("certificate") && !error.contains("/auth"), "{error}");
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for (content, expected) in [("", "no certificates"), ("-----BEGIN CERTIFICATE-----\n!\n", "ca.pem")] {
            fs::write(&file, content).unwrap();
            let error = Roots::read("https://localhost/", Some(&file)).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert_eq!(Roots::read("http://localhost/", Some(&file)), Ok(Roots::Nobody));
        }
    }

    #[test]
    fn a_url_that_is_none_is_not_said() {
        for url in ["https://svc:s3cret@auth/ x", "http://svc:s3cret@[::1/"] {
            let error = Caller::new(url, Duration::from_secs(1), None, &Roots::Nobody, 1).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let error = why(&ureq::Error::BadUri("http://svc:s3cret@/".to_owned()));
        assert!(!error.contains("s3cret"), "{error}");
    }
}
