//! One key, and the signatures it can verify.

use std::fmt;

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Algorithm;

/// A shorter secret can be guessed from one token (RFC 7518 section 3.2 asks for as many bytes as the hash has).
const SECRET_BYTES_MIN: usize = 32;
/// RSA keys of 2 048 to 8 192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// A key that tokens are verified with.
#[derive(Clone)]
pub struct Key {
    kind: Kind,
    /// The only algorithm that it is for, if its set says so.
    pub(super) algorithm: Option<Algorithm>,
}

#[derive(Clone)]
enum Kind {
    /// The secret of an HMAC.
    Secret(Box<[u8]>),
    /// An RSA key as DER.
    Rsa(Box<[u8]>),
    RsaComponents {
        modulus: Box<[u8]>,
        exponent: Box<[u8]>,
    },
    P256(Box<[u8]>),
    P384(Box<[u8]>),
    P521(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

// By hand: it may be a secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Secret(_) => "Key(secret)",
            Kind::Rsa(_) | Kind::RsaComponents { .. } => "Key(RSA)",
            Kind::P256(_) => "Key(P-256)",
            Kind::P384(_) => "Key(P-384)",
            Kind::P521(_) => "Key(P-521)",
            Kind::Ed25519(_) => "Key(Ed25519)",
        })
    }
}

/// Why something is no key for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret is too short.
    #[error("a secret for tokens has 32 bytes at least")]
    Secret,
    /// There is no PEM block of a public key.
    #[error("expected a PEM file with a PUBLIC KEY")]
    Pem,
    /// The key is of a kind we do not know, or is damaged.
    #[error("not a key of a kind we know: RSA from 2048 bits on, P-256, P-384, P-521 or Ed25519")]
    Kind,
}

impl Key {
    /// A secret that is shared with whoever signs.
    pub fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::Secret);
        }
        Ok(Self::of(Kind::Secret(secret.into())))
    }

    /// A public key in a PEM file, as SubjectPublicKeyInfo (RFC 5280): `-----BEGIN PUBLIC KEY-----`.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        let (_, rest) = text.split_once(BEGIN).ok_or(KeyError::Pem)?;
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----").ok_or(KeyError::Pem)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| KeyError::Pem)?;
        Self::from_subject_public_key_info(&der)
    }

    fn from_subject_public_key_info(der: &[u8]) -> Result<Self, KeyError> {
        // Names of algorithms and curves in DER.
        const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];
        const ELLIPTIC: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
        const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
        const P384: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x22];
        const P521: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x23];
        const ED25519: &[u8] = &[0x2B, 0x65, 0x70];
        const SEQUENCE: u8 = 0x30;
        const OBJECT_IDENTIFIER: u8 = 0x06;
        const BIT_STRING: u8 = 0x03;

        let (info, rest) = element(der, SEQUENCE).ok_or(KeyError::Kind)?;
        let (algorithm, key) = element(info, SEQUENCE).ok_or(KeyError::Kind)?;
        let (name, parameters) = element(algorithm, OBJECT_IDENTIFIER).ok_or(KeyError::Kind)?;
        let (key, behind) = element(key, BIT_STRING).ok_or(KeyError::Kind)?;
        // The first byte says how many bits of the last one do not count.
        let Some((0, key)) = key.split_first() else { return Err(KeyError::Kind) };
        if !rest.is_empty() || !behind.is_empty() {
            return Err(KeyError::Kind);
        }
        match name {
            RSA => {
                let key = Self::of(Kind::Rsa(key.into()));
                key.checked()
            }
            ELLIPTIC => {
                let (curve, _) = element(parameters, OBJECT_IDENTIFIER).ok_or(KeyError::Kind)?;
                match curve {
                    P256 => Self::point(Curve::P256, key),
                    P384 => Self::point(Curve::P384, key),
                    P521 => Self::point(Curve::P521, key),
                    _ => Err(KeyError::Kind),
                }
            }
            ED25519 => Self::ed25519(key),
            _ => Err(KeyError::Kind),
        }
    }

    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let modulus = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
        if !MODULUS_BYTES.contains(&modulus.len()) || exponent.is_empty() || exponent.len() > 8 {
            return Err(KeyError::Kind);
        }
        Ok(Self::of(Kind::RsaComponents { modulus: modulus.into(), exponent: exponent.into() }))
    }

    /// A point that is not compressed: 4, x, y.
    pub(super) fn point(curve: Curve, point: &[u8]) -> Result<Self, KeyError> {
        let bytes: Box<[u8]> = point.into();
        Self::of(match curve {
            Curve::P256 => Kind::P256(bytes),
            Curve::P384 => Kind::P384(bytes),
            Curve::P521 => Kind::P521(bytes),
        })
        .checked()
    }

    pub(super) fn ed25519(key: &[u8]) -> Result<Self, KeyError> {
        Self::of(Kind::Ed25519(key.into())).checked()
    }

    fn of(kind: Kind) -> Self {
        Self { kind, algorithm: None }
    }

    /// A key that can be read: a point is on its curve, and so on.
    fn checked(self) -> Result<Self, KeyError> {
        let (algorithm, bytes): (&'static dyn VerificationAlgorithm, _) = match &self.kind {
            Kind::Rsa(bytes) => (&signature::RSA_PKCS1_2048_8192_SHA256, bytes),
            Kind::P256(bytes) => (&signature::ECDSA_P256_SHA256_FIXED, bytes),
            Kind::P384(bytes) => (&signature::ECDSA_P384_SHA384_FIXED, bytes),
            Kind::P521(bytes) => (&signature::ECDSA_P521_SHA512_FIXED, bytes),
            Kind::Ed25519(bytes) => (&signature::ED25519, bytes),
            Kind::Secret(_) | Kind::RsaComponents { .. } => return Ok(self),
        };
        match UnparsedPublicKey::new(algorithm, bytes).parse() {
            Ok(_) => Ok(self),
            Err(_) => Err(KeyError::Kind),
        }
    }

    /// Whether it can have made a signature of this kind. A public key is never a secret, nor the other way round.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Es512, Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let kind = match &self.kind {
            Kind::Secret(_) => matches!(algorithm, Hs256 | Hs384 | Hs512),
            Kind::Rsa(_) | Kind::RsaComponents { .. } => {
                matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
            }
            Kind::P256(_) => algorithm == Es256,
            Kind::P384(_) => algorithm == Es384,
            Kind::P521(_) => algorithm == Es512,
            Kind::Ed25519(_) => algorithm == EdDsa,
        };
        kind && self.algorithm.is_none_or(|only| only == algorithm)
    }

    pub(super) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        let parameters = match algorithm {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            _ => &signature::RSA_PSS_2048_8192_SHA512,
        };
        let with = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match &self.kind {
            Kind::Secret(secret) => {
                let hash = match algorithm {
                    Algorithm::Hs256 => hmac::HMAC_SHA256,
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                let tag = hmac::sign(&hmac::Key::new(hash, secret), message);
                constant_time::verify_slices_are_equal(tag.as_ref(), signature).is_ok()
            }
            Kind::Rsa(key) => with(parameters, key),
            Kind::RsaComponents { modulus, exponent } => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature).is_ok()
            }
            Kind::P256(key) => with(&signature::ECDSA_P256_SHA256_FIXED, key),
            Kind::P384(key) => with(&signature::ECDSA_P384_SHA384_FIXED, key),
            Kind::P521(key) => with(&signature::ECDSA_P521_SHA512_FIXED, key),
            Kind::Ed25519(key) => with(&signature::ED25519, key),
        }
    }
}

/// A curve for ECDSA.
#[derive(Debug, Clone, Copy)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

/// The content of a DER element with this tag, and what stands behind it.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        // Keys are shorter than 64 KiB.
        let count = usize::from(first & 0x7F);
        if !(1..=2).contains(&count) {
            return None;
        }
        let (bytes, behind) = rest.split_at_checked(count)?;
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = behind;
    }
    if found != tag {
        return None;
    }
    rest.split_at_checked(length)
}
