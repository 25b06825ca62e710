//! Asking HTTP services: an agent with time-outs, and nothing that follows redirects or proxies.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use pantala_identity::http::ANSWER_BYTES_MAX;

/// The longest key set that is read, in bytes.
const KEY_SET_BYTES_MAX: usize = 1 << 20;
/// Longer ones are cut off by nobody: they are refused.
const HEADER_BYTES_MAX: usize = 16_384;

/// Asks one service.
pub(super) struct Caller {
    agent: ureq::Agent,
    url: String,
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
    /// What is wrong with the certificates, or that the system has none for an https URL.
    pub fn new(
        url: &str,
        timeout: Duration,
        authorization: Option<String>,
        ca_file: Option<&Path>,
        requests_max: usize,
    ) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if url.starts_with("https://") {
            tls = tls.root_certs(RootCerts::Specific(Arc::new(roots(ca_file)?)));
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
        Ok(Self { agent: config.build().new_agent(), url: url.to_owned(), authorization })
    }

    /// Posts a body; the status and the body of the answer.
    ///
    /// # Errors
    /// Why there is no answer, without the URL.
    pub fn post(&self, content_type: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let mut request = self.agent.post(&self.url).header(CONTENT_TYPE, content_type);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer = request.send(body).map_err(|error| error.to_string())?;
        // One byte more than may be, so that what is too long is known to be.
        read(answer, ANSWER_BYTES_MAX + 1)
    }

    /// Gets the key set.
    ///
    /// # Errors
    /// Why there is none, without the URL.
    pub fn get(&self) -> Result<Vec<u8>, String> {
        let answer = self.agent.get(&self.url).call().map_err(|error| error.to_string())?;
        match read(answer, KEY_SET_BYTES_MAX)? {
            (200, body) => Ok(body),
            (status, _) => Err(format!("status {status}")),
        }
    }
}

fn read(mut answer: ureq::http::Response<ureq::Body>, bytes_max: usize) -> Result<(u16, Vec<u8>), String> {
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(bytes_max as u64).read_to_vec();
    Ok((status, body.map_err(|error| error.to_string())?))
}

fn roots(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, String> {
    let found: Vec<CertificateDer<'static>> = match ca_file {
        Some(path) => {
            let wrong = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
            let text = fs::read(path).map_err(|error| wrong(&error))?;
            let found = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>();
            found.map_err(|error| wrong(&error))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    if found.is_empty() {
        return Err("there are no certificates of authorities to trust; http_ca_file names a file with some".to_owned());
    }
    Ok(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}
