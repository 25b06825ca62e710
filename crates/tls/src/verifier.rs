//! Client certificates: the standard's checks, and what an operator adds to or takes from them.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};

use crate::names::{self, Oddity, UserNameFrom};

/// Certificates of a chain that may be out of date before we give up: more than any chain has.
const DATES_MAX: usize = 16;

/// Certificates between a client's own and its authority's: no chain in use has so many. A longer one is refused before anything of
/// it is looked at.
const INTERMEDIATES_MAX: usize = 10;

/// There are more than [`INTERMEDIATES_MAX`].
#[derive(Debug)]
pub(crate) struct ChainTooLong;

impl fmt::Display for ChainTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS: the client's certificate comes with a chain of more than 10 others")
    }
}

impl std::error::Error for ChainTooLong {}

#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) web: Arc<dyn ClientCertVerifier>,
    pub(crate) user_name_from: UserNameFrom,
    /// Dates are not looked at.
    pub(crate) any_date: bool,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.web.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.web.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        mut now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(ChainTooLong)))));
        }
        let mut result = self.web.verify_client_cert(end_entity, intermediates, now);
        // Dates are looked at first of all, so everything else is looked at again at a time that suits them.
        for _ in 0..DATES_MAX {
            now = match &result {
                Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) if self.any_date => {
                    *not_after
                }
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if self.any_date =>
                {
                    *not_before
                }
                _ => break,
            };
            result = self.web.verify_client_cert(end_entity, intermediates, now);
        }
        let verified = result.map_err(|error| in_full(error, end_entity))?;
        let refused = |other| Error::InvalidCertificate(CertificateError::Other(OtherError(other)));
        if let Some(oddity) = Oddity::of_key_usage(end_entity) {
            return Err(refused(Arc::new(oddity)));
        }
        match names::user_name(self.user_name_from, end_entity) {
            Ok(_) => Ok(verified),
            Err(error) => Err(refused(Arc::new(error))),
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

/// The error, or what it comes from where the certificate itself tells.
fn in_full(error: Error, end_entity: &[u8]) -> Error {
    let oddity = match &error {
        // Where its signature is wrong or nobody is known to have made it, the rest is no reason.
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Oddity::of(end_entity).filter(|oddity| *oddity == Oddity::SelfSigned)
        }
        Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::BadEncoding) => {
            Oddity::of(end_entity).filter(|oddity| *oddity != Oddity::SelfSigned)
        }
        _ => None,
    };
    match oddity {
        Some(oddity) => Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(oddity)))),
        None => error,
    }
}
