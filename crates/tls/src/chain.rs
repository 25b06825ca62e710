//! What lies between a listener's certificate and its authority, where its file has the certificate alone.

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

/// Certificates of a chain, with the listener's own: no chain in use has so many.
const CERTIFICATES_MAX: usize = 10;

/// Appends to a chain the issuers that are among `known`, each by its name, and by its key's identifier where both tell it. Ends in front of
/// an authority that vouches for itself, which clients have, or do not trust.
///
/// Signatures are not looked at: the client does that, and a chain that is wrong was not whole before either.
pub(crate) fn complete(chain: &mut Vec<CertificateDer<'static>>, known: &[CertificateDer<'static>]) {
    while chain.len() < CERTIFICATES_MAX {
        let Some(next) = chain.last().and_then(|last| issuer(last, known)) else { return };
        if chain.contains(next) {
            return;
        }
        chain.push(next.clone());
    }
}

/// The certificate of the issuer; of several the one that is valid longest. None if it is an authority that vouches for itself, or
/// not known.
fn issuer<'k>(certificate: &[u8], known: &'k [CertificateDer<'static>]) -> Option<&'k CertificateDer<'static>> {
    let certificate = parse(certificate)?;
    if is_self_signed(&certificate) {
        return None;
    }
    let wanted_key = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref(),
        _ => None,
    });
    let mut best = None;
    for candidate in known {
        let Some(parsed) = parse(candidate) else { continue };
        let key = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier),
            _ => None,
        });
        let is_other_key = wanted_key.zip(key).is_some_and(|(wanted, key)| wanted != key);
        if parsed.subject().as_raw() != certificate.issuer().as_raw() || is_other_key {
            continue;
        }
        if is_self_signed(&parsed) {
            return None;
        }
        let until = parsed.validity().not_after.timestamp();
        if best.is_none_or(|(best_until, _)| until > best_until) {
            best = Some((until, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}
