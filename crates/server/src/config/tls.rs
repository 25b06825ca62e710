//! TLS of a listener, as an operator writes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pantala_tls::UserNameFrom;

use super::error::{ConfigError, Fault, Origin};
use super::transport::Protocol;

/// TLS of a listener. The files are read when the broker starts, and again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Chains of certificates, each with the listener's own first; never empty. The client's SNI chooses, the first is for all
    /// others.
    pub certificate_files: Vec<PathBuf>,
    /// Their keys, one for each. Default: they are in the files of the certificates.
    pub key_files: Vec<PathBuf>,
    /// Files with the authorities of clients, or directories of such files. Default none: clients are not asked for certificates.
    pub client_ca_files: Vec<PathBuf>,
    /// Files, or directories of them, with certificates between the listener's own and its authority's, for chains that are not whole. Those in
    /// `client_ca_files` count, too. Default none.
    pub chain_files: Vec<PathBuf>,
    /// Whether a client without certificate is refused, where there are `client_ca_files`. Default true.
    pub require_certificate: bool,
    /// Files with lists of revoked client certificates. Default none.
    pub crl_files: Vec<PathBuf>,
    /// Versions of TLS taken: `1.2`, `1.3`; not empty. Default both.
    pub versions: Vec<&'static str>,
    /// OpenSSL's names of the cipher suites taken. Default none, which is all.
    pub ciphers: Vec<&'static str>,
    /// ALPN protocols. Default `mqtt`, on WebSocket `http/1.1`, on a port for both both; none: every client is taken.
    pub alpn: Vec<String>,
    /// Which name in a client's certificate is its User Name. Default none.
    pub user_name_from_certificate: UserNameFrom,
    /// Dates of client certificates are not looked at. Default false.
    pub ignore_certificate_dates: bool,
}

pub(super) const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// Words for [`UserNameFrom`].
pub(super) const USER_NAME_FROM: [&str; 4] = ["no", "cn", "subject", "san"];

pub(super) fn user_name_from(word: &str) -> UserNameFrom {
    match word {
        "cn" => UserNameFrom::CommonName,
        "subject" => UserNameFrom::Subject,
        "san" => UserNameFrom::SubjectAlternativeName,
        _ => UserNameFrom::No,
    }
}

pub(super) fn user_name_from_word(from: UserNameFrom) -> &'static str {
    match from {
        UserNameFrom::No => "no",
        UserNameFrom::CommonName => "cn",
        UserNameFrom::Subject => "subject",
        UserNameFrom::SubjectAlternativeName => "san",
    }
}

/// The same before defaults are put in.
#[derive(Default)]
pub(super) struct TlsDraft {
    pub certificate_files: Vec<PathBuf>,
    pub key_files: Vec<PathBuf>,
    pub client_ca_files: Vec<PathBuf>,
    pub chain_files: Vec<PathBuf>,
    pub require_certificate: Option<bool>,
    pub crl_files: Vec<PathBuf>,
    pub versions: Vec<&'static str>,
    pub ciphers: Vec<&'static str>,
    pub alpn: Option<Vec<String>>,
    pub user_name_from_certificate: UserNameFrom,
    pub ignore_certificate_dates: bool,
    /// Where each file was named, and by which key or directive.
    pub places: BTreeMap<PathBuf, (String, Origin)>,
}

impl TlsDraft {
    /// Whether nobody without a certificate is let in. One that names its user has to be there.
    pub fn needs_certificates_of_clients(&self) -> bool {
        let of_all = !self.client_ca_files.is_empty() && self.require_certificate != Some(false);
        of_all || self.user_name_from_certificate != UserNameFrom::No
    }

    /// Remembers where a key was written, if it names files.
    pub fn note(&mut self, key: &'static str, origin: &Origin) {
        let files = match key {
            "tls_certificate_files" => &self.certificate_files,
            "tls_key_files" => &self.key_files,
            "tls_client_ca_files" => &self.client_ca_files,
            "tls_chain_files" => &self.chain_files,
            "tls_crl_files" => &self.crl_files,
            _ => return,
        };
        self.places.extend(files.iter().map(|file| (file.clone(), (key.to_owned(), origin.clone()))));
    }

    /// None where nothing was written.
    pub fn finish(self, origin: &Origin, protocol: Protocol) -> Result<Option<Tls>, ConfigError> {
        const SECTION: &str = "[[listener]]";
        let error = |fault| Err(ConfigError::new(origin.clone(), fault));
        if self.certificate_files.is_empty() {
            let written = !self.key_files.is_empty()
                || !self.client_ca_files.is_empty()
                || !self.chain_files.is_empty()
                || self.require_certificate.is_some()
                || !self.crl_files.is_empty()
                || !self.versions.is_empty()
                || !self.ciphers.is_empty()
                || self.alpn.is_some()
                || self.user_name_from_certificate != UserNameFrom::No
                || self.ignore_certificate_dates;
            if written {
                return error(Fault::Missing { key: "tls_certificate_files", section: SECTION });
            }
            return Ok(None);
        }
        if !self.key_files.is_empty() && self.key_files.len() != self.certificate_files.len() {
            return error(Fault::BadText {
                key: "tls_key_files".to_owned(),
                given: format!("{} files", self.key_files.len()),
                reason: "it has to be as many as tls_certificate_files, in the same order",
            });
        }
        if self.client_ca_files.is_empty() {
            let needs = self.require_certificate == Some(true)
                || !self.crl_files.is_empty()
                || self.user_name_from_certificate != UserNameFrom::No
                || self.ignore_certificate_dates;
            if needs {
                return error(Fault::Missing { key: "tls_client_ca_files", section: SECTION });
            }
        }
        let alpn: &[&str] = match protocol {
            Protocol::Mqtt => &["mqtt"],
            Protocol::WebSocket => &["http/1.1"],
            Protocol::Any => &["mqtt", "http/1.1"],
        };
        let key_files = if self.key_files.is_empty() { self.certificate_files.clone() } else { self.key_files };
        Ok(Some(Tls {
            certificate_files: self.certificate_files,
            key_files,
            client_ca_files: self.client_ca_files,
            chain_files: self.chain_files,
            require_certificate: self.require_certificate.unwrap_or(true),
            crl_files: self.crl_files,
            versions: if self.versions.is_empty() { VERSIONS.to_vec() } else { self.versions },
            ciphers: self.ciphers,
            alpn: self.alpn.unwrap_or_else(|| alpn.iter().map(|&protocol| protocol.to_owned()).collect()),
            user_name_from_certificate: self.user_name_from_certificate,
            ignore_certificate_dates: self.ignore_certificate_dates,
        }))
    }
}
