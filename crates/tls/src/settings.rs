//! From PEM text to what a listener needs.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::{TLS12, TLS13};
use rustls::{CertRevocationListError, Error, RootCertStore, ServerConfig};

use crate::KeyLog;
use crate::chain;
use crate::ciphers;
use crate::names::{self, NameError, Names, UserNameFrom};
use crate::traffic_keys::with_small_keys;
use crate::verifier::Verifier;

/// The content of a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// What it is called, for errors.
    pub name: String,
    /// PEM, or DER where one object is expected.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Pem {
    /// Without the content, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Versions of TLS that a listener takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 alone.
    V12,
    /// 1.3 alone.
    V13,
}

/// What is asked of clients.
#[derive(Debug, Clone, Default)]
pub struct ClientCertificates {
    /// Authorities whose clients are trusted, in one or more files.
    pub authorities: Vec<Pem>,
    /// A client without certificate is refused. Also so where `user_name_from` takes a name from it.
    pub required: bool,
    /// Lists of revoked certificates. With one or more of them, a certificate of a client whose authority has none is refused,
    /// as is one revoked by any of them. A list that is out of date counts all the same.
    pub revocation_lists: Vec<Pem>,
    /// Which name is the User Name. A certificate without a safe one is refused.
    pub user_name_from: UserNameFrom,
    /// Certificates that have expired or are not valid yet are taken. For devices without a clock, and no good otherwise.
    pub any_date: bool,
}

/// What an operator has chosen for one listener.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Chains of certificates, each beginning with the listener's own, and their keys. The client's SNI chooses among them; the
    /// first one is for clients that name nobody, or somebody else.
    pub certificates: Vec<(Pem, Pem)>,
    /// Where a chain is not whole, what is missing is looked for here and in the authorities of clients: see [`Settings::build`]. What is
    /// no certificate is skipped. Default none.
    pub chain_certificates: Vec<Pem>,
    /// None: clients are not asked for certificates.
    pub client_certificates: Option<ClientCertificates>,
    /// Versions taken. Default both.
    pub versions: Versions,
    /// OpenSSL's names of the cipher suites taken: see [`ciphers::ALL`]. Empty, the default: all. A version of TLS none of whose suites is named
    /// is taken with all of its own.
    pub ciphers: Vec<&'static str>,
    /// ALPN protocols, the best first. Empty, the default: none is agreed upon, and every client is taken.
    pub alpn: Vec<String>,
    /// Is told the secrets of all sessions. Default None.
    pub key_log: Option<KeyLog>,
}

/// What connections of a listener are made from.
#[derive(Clone)]
pub struct Configuration {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) any_date: bool,
    /// The listener's own certificates, in the order of [`Settings::certificates`].
    pub certificates: Vec<OwnCertificate>,
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// One of a listener's certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The file it is from.
    pub file: String,
    /// Its subject: see [`Names::subject`].
    pub subject: String,
    /// From when on it is valid, in seconds since 1970; the latest beginning in its chain.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970; the earliest end in its chain.
    pub not_after: i64,
}

/// Why a listener cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsError {
    /// No certificate was named.
    NoCertificate,
    /// The file is not PEM.
    NotPem {
        /// Its name.
        file: String,
        /// What is wrong.
        error: String,
    },
    /// The file has none of what it should have: `certificate`, `key`, `list of revoked certificates`.
    Nothing {
        /// Its name.
        file: String,
        /// What it should have.
        of: &'static str,
    },
    /// The key has a passphrase.
    EncryptedKey {
        /// The file's name.
        file: String,
    },
    /// The key is none that can be used.
    BadKey {
        /// The file's name.
        file: String,
        /// Why.
        error: String,
    },
    /// The key is not that of the certificate.
    KeyMismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// A certificate that cannot be read.
    BadCertificate {
        /// The file's name.
        file: String,
        /// Why.
        error: String,
    },
    /// A list of revoked certificates that cannot be read.
    BadList {
        /// The file's name.
        file: String,
        /// Why, and what helps.
        error: &'static str,
    },
    /// Something else that rustls refuses.
    Refused(String),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("a TLS listener needs a certificate"),
            Self::NotPem { file, error } => write!(f, "{file} is not PEM: {error}"),
            Self::Nothing { file, of } => write!(f, "{file} has no {of}"),
            Self::EncryptedKey { file } => write!(
                f,
                "{file} has a key with a passphrase, which a service cannot type; `openssl pkey -in {file} -out NEW` takes it off"
            ),
            Self::BadKey { file, error } => write!(f, "{file} has no key that can be used: {error}"),
            Self::KeyMismatch { certificate, key } => {
                write!(f, "the key in {key} is not that of the certificate in {certificate}")
            }
            Self::BadCertificate { file, error } => write!(f, "{file} has a certificate that cannot be used: {error}"),
            Self::BadList { file, error } => {
                write!(f, "{file} has a list of revoked certificates that cannot be used: {error}")
            }
            Self::Refused(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for SettingsError {}

impl SettingsError {
    /// The name of the file that is wrong: see [`Pem::name`]. None where it is no file.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::NotPem { file, .. }
            | Self::Nothing { file, .. }
            | Self::EncryptedKey { file }
            | Self::BadKey { file, .. }
            | Self::KeyMismatch { key: file, .. }
            | Self::BadCertificate { file, .. }
            | Self::BadList { file, .. } => Some(file),
            Self::NoCertificate | Self::Refused(_) => None,
        }
    }
}

impl Settings {
    /// Makes what a listener needs. Tickets of sessions are good for this configuration alone: so a client whose certificate is
    /// no longer accepted cannot go around that by resuming.
    ///
    /// A chain that ends before the authority that vouches for itself is completed from [`Settings::chain_certificates`] and the
    /// authorities of clients, as far as they go, without that authority. A listener's certificate may be of any version of X.509: whether
    /// it is to be trusted is for clients to say.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn build(&self) -> Result<Configuration, SettingsError> {
        let mut provider = default_provider();
        if !self.ciphers.is_empty() {
            let named = |all: &dyn Fn(&str) -> bool| self.ciphers.iter().any(|name| all(name));
            let (v13, v12) = (named(&|name| name.starts_with("TLS_")), named(&|name| !name.starts_with("TLS_")));
            provider.cipher_suites.retain(|suite| {
                let Some((name, ..)) = ciphers::ALL.iter().find(|(.., ours)| ours == suite) else { return false };
                let its_version_is_named = if name.starts_with("TLS_") { v13 } else { v12 };
                !its_version_is_named || self.ciphers.contains(name)
            });
        }
        for suite in &mut provider.cipher_suites {
            *suite = with_small_keys(*suite);
        }
        let provider = Arc::new(provider);
        let versions: &[_] = match self.versions {
            Versions::All => &[&TLS13, &TLS12],
            Versions::V12 => &[&TLS12],
            Versions::V13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(refused)?;
        let any_date = self.client_certificates.as_ref().is_some_and(|clients| clients.any_date);
        let builder = match &self.client_certificates {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::new(verifier(clients, &provider)?)),
        };
        let (chains, certificates) = self.chains(&provider)?;
        let mut server = builder.with_cert_resolver(Arc::new(Chains { chains }));
        server.alpn_protocols = self.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
        server.ticketer = Ticketer::new().map_err(refused)?;
        // All is in the tickets: clients that do not come back cost nothing.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = TICKETS;
        server.max_early_data_size = 0;
        if let Some(key_log) = &self.key_log {
            server.key_log = Arc::new(key_log.clone());
        }
        Ok(Configuration { server: Arc::new(server), any_date, certificates })
    }

    fn chains(&self, provider: &CryptoProvider) -> Result<(Vec<Chain>, Vec<OwnCertificate>), SettingsError> {
        if self.certificates.is_empty() {
            return Err(SettingsError::NoCertificate);
        }
        let mut known = Vec::new();
        let authorities = self.client_certificates.iter().flat_map(|clients| &clients.authorities);
        for pem in self.chain_certificates.iter().chain(authorities) {
            known.extend(CertificateDer::pem_slice_iter(&pem.bytes).flatten());
        }
        let (mut chains, mut own) = (Vec::new(), Vec::new());
        for (certificate, key) in &self.certificates {
            let mut chain = read_certificates(certificate)?;
            chain::complete(&mut chain, &known);
            let Some(first) = chain.first() else {
                return Err(SettingsError::Nothing { file: certificate.name.clone(), of: "certificate" });
            };
            let unreadable = |error: NameError| SettingsError::BadCertificate {
                file: certificate.name.clone(),
                error: match error {
                    NameError::Certificate => "it is no X.509 certificate".to_owned(),
                    error => error.to_string(),
                },
            };
            let subject = Names::read(first).map_err(unreadable)?.subject;
            let (mut not_before, mut not_after) = (i64::MIN, i64::MAX);
            for certificate in &chain {
                not_before = not_before.max(names::not_before(certificate).map_err(unreadable)?);
                not_after = not_after.min(names::not_after(certificate).map_err(unreadable)?);
            }
            own.push(OwnCertificate { file: certificate.name.clone(), subject, not_before, not_after });
            let names = names::dns_names(first);
            let key_der = read_key(key)?;
            let signing = provider
                .key_provider
                .load_private_key(key_der)
                .map_err(|error| SettingsError::BadKey { file: key.name.clone(), error: error.to_string() })?;
            if !is_key_of(&*signing, first).map_err(unreadable)? {
                return Err(SettingsError::KeyMismatch {
                    certificate: certificate.name.clone(),
                    key: key.name.clone(),
                });
            }
            let certified = CertifiedKey::new(chain, signing);
            chains.push(Chain { names, certified: Arc::new(certified) });
        }
        Ok((chains, own))
    }
}

/// Tickets after a handshake: a client has one connection.
const TICKETS: usize = 1;

fn refused(error: Error) -> SettingsError {
    SettingsError::Refused(error.to_string())
}

/// Whether a certificate's public key belongs to a key. rustls asks the same, but of certificates of version 3 alone.
fn is_key_of(key: &dyn SigningKey, certificate: &[u8]) -> Result<bool, NameError> {
    let public = names::public_key(certificate)?;
    Ok(key.public_key().is_none_or(|own| *own == *public))
}

fn read_certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let not_pem = |error: pem::Error| SettingsError::NotPem { file: pem.name.clone(), error: in_words(&error) };
    CertificateDer::pem_slice_iter(&pem.bytes).collect::<Result<_, _>>().map_err(not_pem)
}

fn read_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, SettingsError> {
    match PrivateKeyDer::from_pem_slice(&pem.bytes) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted(&pem.bytes) => Err(SettingsError::EncryptedKey { file: pem.name.clone() }),
        Err(pem::Error::NoItemsFound) => Err(SettingsError::Nothing { file: pem.name.clone(), of: "key" }),
        // Not the parser's words: they might show a part of it.
        Err(_) => Err(SettingsError::BadKey { file: pem.name.clone(), error: "it is not PEM".to_owned() }),
    }
}

fn is_encrypted(bytes: &[u8]) -> bool {
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

fn in_words(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section begins in a wrong way".to_owned(),
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        error => error.to_string(),
    }
}

fn verifier(clients: &ClientCertificates, provider: &Arc<CryptoProvider>) -> Result<Verifier, SettingsError> {
    let mut roots = RootCertStore::empty();
    for pem in &clients.authorities {
        let certificates = read_certificates(pem)?;
        if certificates.is_empty() {
            return Err(SettingsError::Nothing { file: pem.name.clone(), of: "certificate" });
        }
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| SettingsError::BadCertificate { file: pem.name.clone(), error: error.to_string() })?;
        }
    }
    if roots.is_empty() {
        return Err(SettingsError::Refused("client certificates need an authority that they are from".to_owned()));
    }
    let roots = Arc::new(roots);
    let mut lists = Vec::new();
    for pem in &clients.revocation_lists {
        let before = lists.len();
        for list in CertificateRevocationListDer::pem_slice_iter(&pem.bytes) {
            lists
                .push(list.map_err(|error| SettingsError::NotPem { file: pem.name.clone(), error: in_words(&error) })?);
        }
        if lists.len() == before {
            return Err(SettingsError::Nothing { file: pem.name.clone(), of: "list of revoked certificates" });
        }
        // Tried by themselves, as the error does not say which of them it is about.
        let alone = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
        // What else there may be is found below.
        if let Err(VerifierBuilderError::InvalidCrl(error)) = alone.with_crls(lists[before..].to_vec()).build() {
            let error = list_error(&error, &lists[before..]);
            return Err(SettingsError::BadList { file: pem.name.clone(), error });
        }
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .with_crls(lists)
        // Lists of the authorities above it are not always at hand; that of the one that names the client has to be.
        .only_check_end_entity_revocation();
    if !clients.required && clients.user_name_from == UserNameFrom::No {
        builder = builder.allow_unauthenticated();
    }
    let web = builder.build().map_err(|error| SettingsError::Refused(error.to_string()))?;
    Ok(Verifier { web, user_name_from: clients.user_name_from, any_date: clients.any_date })
}

fn list_error(error: &CertRevocationListError, lists: &[CertificateRevocationListDer<'_>]) -> &'static str {
    match error {
        _ if lists.iter().any(|list| names::is_old_list(list)) => {
            "it is of version 1, and only version 2 is read; `openssl ca -gencrl` makes one with `crlnumber = FILE` in its \
             configuration, where `echo 01 > FILE` has made the file"
        }
        CertRevocationListError::UnsupportedCrlVersion => "it is of a version that is not known here",
        CertRevocationListError::ParseError => "it is not as such lists are (RFC 5280, version 2 with crlNumber)",
        CertRevocationListError::UnsupportedCriticalExtension => "it has a critical extension that is not known here",
        CertRevocationListError::UnsupportedDeltaCrl => "it is a delta list; a whole one is needed",
        CertRevocationListError::UnsupportedIndirectCrl => "it is an indirect list, of several authorities",
        CertRevocationListError::UnsupportedRevocationReason => {
            "it has a reason for a revocation that is not known here"
        }
        CertRevocationListError::InvalidCrlNumber => "its number (crlNumber) is longer than 20 bytes",
        CertRevocationListError::InvalidRevokedCertSerialNumber => "a serial number in it is longer than 20 bytes",
        _ => "it breaks the rules for such lists (RFC 5280)",
    }
}

/// A chain of certificates, its key, and the DNS names it is for.
#[derive(Debug)]
struct Chain {
    names: Vec<String>,
    certified: Arc<CertifiedKey>,
}

#[derive(Debug)]
struct Chains {
    chains: Vec<Chain>,
}

impl ResolvesServerCert for Chains {
    /// That for the name the client wants; among several, and where there is none for it, the first one whose key the client can
    /// make use of.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |chain: &&Chain| chain.certified.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().map(str::to_ascii_lowercase).and_then(|wanted| {
            self.chains.iter().filter(usable).find(|chain| chain.names.iter().any(|name| covers(name, &wanted)))
        });
        let chosen = named.or_else(|| self.chains.iter().find(usable)).or(self.chains.first());
        chosen.map(|chain| Arc::clone(&chain.certified))
    }
}

/// Whether the name in a certificate is the one wanted, or its `*` stands for the first label of that.
fn covers(name: &str, wanted: &str) -> bool {
    match name.strip_prefix("*.") {
        None => name == wanted,
        Some(parent) => wanted.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
    }
}
