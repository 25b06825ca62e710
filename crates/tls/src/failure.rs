//! What went wrong with a connection, in words that say what can be done about it.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::NameError;
use crate::names::Oddity;
use crate::verifier::ChainTooLong;

/// Why a TLS connection is of no use. The text is one of a fixed set: nothing that a client says is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure(&'static str);

impl Failure {
    /// The text.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// A certificate of a resumed session has expired since.
    pub(crate) const EXPIRED: Self = Self("TLS: the client's certificate has expired");

    /// The keys have been used as often as they may be.
    pub(crate) const EXHAUSTED: Self = Self("TLS: the keys of this connection are used up");

    /// More than a handshake can need.
    pub(crate) const TOO_LARGE: Self = Self("TLS: the handshake is too large");

    /// `first_byte` is the first one that the client sent, `open` whether the handshake was over.
    pub(crate) fn of(error: &Error, first_byte: u8, open: bool) -> Self {
        Self(match error {
            // No record begins so.
            Error::InvalidMessage(_) if !open && first_byte == 0x10 => "a plain MQTT client on a TLS listener",
            Error::InvalidMessage(_) if !open && first_byte.is_ascii_alphabetic() => {
                "a client without TLS (HTTP, SSH or a PROXY header) on a TLS listener"
            }
            Error::InvalidMessage(_) if !open && first_byte != 0x16 => "what came first is not TLS",
            Error::InvalidMessage(_) => "TLS: a message that cannot be read",
            Error::NoCertificatesPresented => "TLS: the client has no certificate, and this listener requires one",
            Error::InvalidCertificate(cause) => certificate(cause),
            Error::PeerIncompatible(cause) => incompatible(cause),
            Error::NoApplicationProtocol => {
                "TLS: none of the client's ALPN protocols is one of this listener (tls_alpn)"
            }
            Error::AlertReceived(alert) => alert_received(*alert, open),
            Error::DecryptError | Error::PeerSentOversizedRecord => "TLS: a record that was damaged on the way",
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => "TLS: the client broke the protocol",
            _ => "TLS: it cannot go on",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

fn certificate(cause: &CertificateError) -> &'static str {
    match cause {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Failure::EXPIRED.0,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "TLS: the client's certificate is not valid yet; are the clocks right?"
        }
        CertificateError::Revoked => "TLS: the client's certificate has been revoked",
        // A signature is wrong, too, where two authorities have the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "TLS: the client's certificate is from an authority that is not in tls_client_ca_files"
        }
        CertificateError::UnknownRevocationStatus => {
            "TLS: tls_crl_files has no list of the authority of the client's certificate"
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "TLS: the list of revoked certificates is out of date"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "TLS: the client's certificate is not for clients (Extended Key Usage)"
        }
        CertificateError::BadEncoding => "TLS: the client's certificate cannot be read",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "TLS: the client's certificate is signed in a way that is not taken, as with SHA-1 or RSA of less than 2048 bits"
        }
        CertificateError::UnhandledCriticalExtension => {
            "TLS: the client's certificate has a critical extension that is not known here"
        }
        CertificateError::Other(other) => {
            let other = &other.0;
            if let Some(name) = other.downcast_ref::<NameError>() {
                name.as_str()
            } else if let Some(oddity) = other.downcast_ref::<Oddity>() {
                oddity.as_str()
            } else if other.is::<ChainTooLong>() {
                "TLS: the client's certificate comes with a chain of more than 10 others"
            } else {
                "TLS: the client's certificate is not accepted: it breaks the rules for certificates (RFC 5280)"
            }
        }
        _ => "TLS: the client's certificate is not accepted",
    }
}

fn incompatible(cause: &PeerIncompatible) -> &'static str {
    match cause {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        // Clients of TLS 1.1 and before do not have it.
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => {
            "TLS: the client offers no version that this listener takes (tls_versions)"
        }
        PeerIncompatible::NoCipherSuitesInCommon => "TLS: no cipher suite in common (tls_ciphers)",
        PeerIncompatible::NoKxGroupsInCommon => "TLS: no group for the key exchange in common",
        PeerIncompatible::NoSignatureSchemesInCommon => {
            "TLS: the client takes no signature of this listener's key: ECDSA or RSA alone, perhaps"
        }
        PeerIncompatible::ExtendedMasterSecretExtensionRequired => "TLS: the client lacks Extended Master Secret",
        _ => "TLS: the client lacks what this listener needs",
    }
}

fn alert_received(alert: AlertDescription, open: bool) -> &'static str {
    use AlertDescription as A;
    match alert {
        A::UnknownCA | A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate => {
            "TLS: the client does not trust this listener's certificate"
        }
        A::CertificateExpired => "TLS: this listener's certificate has expired, says the client",
        A::HandshakeFailure | A::InsufficientSecurity => "TLS: the client found no cipher suite to its liking",
        A::ProtocolVersion => "TLS: the client takes none of this listener's versions",
        A::NoApplicationProtocol => "TLS: the client wants another ALPN protocol",
        _ if open => "TLS: the client reported an error",
        _ => "TLS: the client broke off the handshake",
    }
}
