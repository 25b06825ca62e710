//! Names in certificates. What is read here has been verified before, or is about to be.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::{AttributeTypeAndValue, X509Name, X509Version};

/// Longest name taken, in bytes: that of an MQTT string.
const NAME_BYTES_MAX: usize = 65_535;

/// Which name in a client certificate is its User Name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UserNameFrom {
    /// None.
    #[default]
    No,
    /// The Common Name.
    CommonName,
    /// The whole subject: see [`Names::subject`].
    Subject,
    /// The Subject Alternative Name, of which there has to be exactly one.
    SubjectAlternativeName,
}

/// The names in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The subject as RFC 2253 writes it: the last attribute first, separated by commas, special characters, control
    /// characters and bytes beyond ASCII escaped with `\`. The same text that OpenSSL's `-nameopt RFC2253` prints.
    pub subject: String,
    /// The Common Name, if there is exactly one and it is text.
    pub common_name: Option<String>,
    /// DNS names, mail addresses, URIs and IP addresses, in their order.
    pub subject_alternative_names: Vec<String>,
}

/// Why a certificate has no User Name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// It cannot be read.
    Certificate,
    /// There is no name of the kind, or it is empty.
    Missing,
    /// There are two.
    Ambiguous,
    /// It is not text in UTF-8, or of a kind of text that is no longer used.
    NotText,
    /// It has a control character.
    Control,
    /// It has `*`, `+` or `#`, which rules would read as a wildcard.
    Wildcard,
    /// It is longer than 65,535 bytes.
    TooLong,
}

impl NameError {
    /// The same for a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "TLS: the client's certificate cannot be read",
            Self::Missing => "TLS: the client's certificate has no name that could be its User Name",
            Self::Ambiguous => "TLS: the client's certificate has two names that could be its User Name",
            Self::NotText => "TLS: the name in the client's certificate is not UTF-8",
            Self::Control => "TLS: the name in the client's certificate has a control character",
            Self::Wildcard => "TLS: the name in the client's certificate has a wildcard",
            Self::TooLong => "TLS: the name in the client's certificate is too long",
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for NameError {}

impl Names {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`NameError::Certificate`].
    pub fn read(der: &[u8]) -> Result<Self, NameError> {
        let certificate = parse(der)?;
        Ok(Self {
            subject: rfc2253(certificate.subject()),
            common_name: common_name(certificate.subject()).ok(),
            subject_alternative_names: alternatives(&certificate).unwrap_or_default(),
        })
    }
}

/// The User Name that a certificate in DER stands for; None if certificates are no source of them.
///
/// # Errors
/// If there is no such name, more than one, or one that no rule could safely be about.
pub fn user_name(from: UserNameFrom, der: &[u8]) -> Result<Option<String>, NameError> {
    if from == UserNameFrom::No {
        return Ok(None);
    }
    let certificate = parse(der)?;
    let name = match from {
        UserNameFrom::No | UserNameFrom::Subject => rfc2253(certificate.subject()),
        UserNameFrom::CommonName => common_name(certificate.subject())?,
        UserNameFrom::SubjectAlternativeName => {
            let mut names = alternatives(&certificate)?.into_iter();
            match (names.next(), names.next()) {
                (Some(name), None) => name,
                (None, _) => return Err(NameError::Missing),
                (Some(_), Some(_)) => return Err(NameError::Ambiguous),
            }
        }
    };
    check(&name)?;
    Ok(Some(name))
}

/// From when on a certificate in DER is valid, in seconds since 1970.
///
/// # Errors
/// [`NameError::Certificate`].
pub fn not_before(der: &[u8]) -> Result<i64, NameError> {
    Ok(parse(der)?.validity().not_before.timestamp())
}

/// Until when a certificate in DER is valid, in seconds since 1970.
///
/// # Errors
/// [`NameError::Certificate`].
pub fn not_after(der: &[u8]) -> Result<i64, NameError> {
    Ok(parse(der)?.validity().not_after.timestamp())
}

/// The public key of a certificate in DER, a SubjectPublicKeyInfo in DER, too.
pub(crate) fn public_key(der: &[u8]) -> Result<Vec<u8>, NameError> {
    Ok(parse(der)?.public_key().raw.to_vec())
}

/// Whether a list of revoked certificates in DER is of version 1.
pub(crate) fn is_old_list(der: &[u8]) -> bool {
    CertificateRevocationList::from_der(der).is_ok_and(|(_, list)| list.version().is_none())
}

/// What is unusual about a client's certificate that was refused, if something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oddity {
    /// It is of version 1 or 2 of X.509.
    OldVersion,
    /// It is an authority's own.
    Authority,
    /// It vouches for itself.
    SelfSigned,
    /// Its key is not for signing, which is what a client does with it (RFC 5280, 4.2.1.3).
    NotForSignatures,
}

impl Oddity {
    /// Looks at a certificate in DER.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let certificate = parse(der).ok()?;
        if certificate.version() != X509Version::V3 {
            return Some(Self::OldVersion);
        }
        if certificate.is_ca() {
            return Some(Self::Authority);
        }
        (certificate.subject().as_raw() == certificate.issuer().as_raw()).then_some(Self::SelfSigned)
    }

    /// Looks at the Key Usage of a certificate in DER. As OpenSSL does, it is content with keyAgreement, too.
    pub(crate) fn of_key_usage(der: &[u8]) -> Option<Self> {
        let certificate = parse(der).ok()?;
        let usage = certificate.key_usage().ok()??.value;
        (!usage.digital_signature() && !usage.key_agreement()).then_some(Self::NotForSignatures)
    }

    /// The same for a log, with what helps.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OldVersion => {
                "TLS: the client's certificate is of version 1 of X.509, which is not taken; sign it again with \
                 `openssl x509 -req -extfile FILE`, and basicConstraints=CA:FALSE in FILE, for version 3 (docs/tls.md)"
            }
            Self::Authority => {
                "TLS: the client's certificate is that of an authority (CA:TRUE), which is not taken; it needs one of its own, \
                 signed with basicConstraints=CA:FALSE (docs/tls.md)"
            }
            Self::SelfSigned => {
                "TLS: the client's certificate is self-signed: from itself, and so from an authority that is not in tls_client_ca_files"
            }
            Self::NotForSignatures => {
                "TLS: the client's certificate is not for signatures (Key Usage without digitalSignature)"
            }
        }
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Oddity {}

/// The DNS names in a certificate in DER, in lower case: a `*.` at the front stands for one label.
pub(crate) fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = parse(der) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, NameError> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|_| NameError::Certificate)
}

/// Whether a name that a certificate is said to have can be a User Name.
///
/// # Errors
/// If it is empty, too long, or one that no rule could safely be about.
pub fn check(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Missing),
        name if name.len() > NAME_BYTES_MAX => Err(NameError::TooLong),
        name if name.contains(char::is_control) => Err(NameError::Control),
        name if name.contains(['*', '+', '#']) => Err(NameError::Wildcard),
        _ => Ok(()),
    }
}

fn common_name(subject: &X509Name<'_>) -> Result<String, NameError> {
    let mut names = subject.iter_common_name();
    match (names.next(), names.next()) {
        (None, _) => Err(NameError::Missing),
        (Some(name), None) => text(name.attr_value()),
        (Some(_), Some(_)) => Err(NameError::Ambiguous),
    }
}

/// All names of the kinds that are text; an error if one of them is not, as what is beside it cannot be trusted either.
fn alternatives(certificate: &X509Certificate<'_>) -> Result<Vec<String>, NameError> {
    let extension = certificate.subject_alternative_name().map_err(|_| NameError::Certificate)?;
    let mut names = Vec::new();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                names.push((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => names.push(address(bytes).ok_or(NameError::NotText)?),
            GeneralName::Invalid(..) => return Err(NameError::NotText),
            _ => {}
        }
    }
    Ok(names)
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).to_string())
}

fn text(value: &Any<'_>) -> Result<String, NameError> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            std::str::from_utf8(value.data).map(str::to_owned).map_err(|_| NameError::NotText)
        }
        Tag::BmpString => {
            let (pairs, []) = value.data.as_chunks::<2>() else { return Err(NameError::NotText) };
            let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
            char::decode_utf16(units).collect::<Result<_, _>>().map_err(|_| NameError::NotText)
        }
        // Its alphabet is what the writer took it for; only what all agree on is taken.
        Tag::T61String if value.data.is_ascii() => Ok(value.data.iter().map(|byte| char::from(*byte)).collect()),
        _ => Err(NameError::NotText),
    }
}

/// What RFC 2253 and OpenSSL call the attributes.
const ATTRIBUTES: [(&str, &str); 19] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn rfc2253(name: &X509Name<'_>) -> String {
    let mut sets: Vec<String> = name
        .iter_rdn()
        .map(|set| {
            // Within a set the last comes first, too.
            let mut attributes: Vec<String> = set.iter().map(attribute).collect();
            attributes.reverse();
            attributes.join("+")
        })
        .collect();
    sets.reverse();
    sets.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == oid);
    match (known, text(value)) {
        (Some((_, name)), Ok(text)) => format!("{name}={}", escaped(&text)),
        (known, _) => {
            let name = known.map_or(oid.as_str(), |(_, name)| name);
            format!("{name}=#{}", dump(value))
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.len().wrapping_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => escaped.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => escaped.push_str("\\#"),
            b' ' if at == 0 || at == last => escaped.push_str("\\ "),
            b' '..=b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("\\{byte:02X}")),
        }
    }
    escaped
}

/// The value in DER, in hexadecimal digits.
fn dump(value: &Any<'_>) -> String {
    let mut der = Vec::with_capacity(value.data.len() + 6);
    der.push((value.tag().0 & 0xff) as u8);
    match value.data.len() {
        short @ ..=127 => der.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let from = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
            der.push(0x80 | (bytes.len() - from) as u8);
            der.extend_from_slice(&bytes[from..]);
        }
    }
    der.extend_from_slice(value.data);
    der.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn der(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn common_name_of(value: impl Into<DnValue>) -> Result<Option<String>, NameError> {
        let der = der(|params| params.distinguished_name.push(DnType::CommonName, value));
        user_name(UserNameFrom::CommonName, &der)
    }

    #[test]
    fn common_names() {
        assert_eq!(common_name_of("sensor-7"), Ok(Some("sensor-7".to_owned())));
        assert_eq!(common_name_of("Zähler ü"), Ok(Some("Zähler ü".to_owned())));
        let bmp = DnValue::BmpString(rcgen::string::BmpString::try_from("Zähler").unwrap());
        assert_eq!(common_name_of(bmp), Ok(Some("Zähler".to_owned())));
        assert_eq!(common_name_of(""), Err(NameError::Missing));
        assert_eq!(common_name_of("a\0b"), Err(NameError::Control));
        assert_eq!(common_name_of("a\u{85}b"), Err(NameError::Control));
        for wildcard in ["*", "*.example.org", "a/+/b", "#"] {
            assert_eq!(common_name_of(wildcard), Err(NameError::Wildcard));
        }
        assert_eq!(common_name_of("a".repeat(70_000)), Err(NameError::TooLong));
        assert_eq!(user_name(UserNameFrom::CommonName, &der(|_| {})), Err(NameError::Missing));
        assert_eq!(user_name(UserNameFrom::CommonName, b"no certificate"), Err(NameError::Certificate));
        assert_eq!(user_name(UserNameFrom::No, b"no certificate"), Ok(None));
    }

    /// The DER of a certificate whose subject has the same attribute twice, or bytes that are not UTF-8: rcgen makes neither, so
    /// the bytes of another one are changed, of the same length.
    #[test]
    fn two_common_names_and_bytes_that_are_no_text() {
        let two = der(|params| {
            params.distinguished_name.push(DnType::CommonName, "first");
            params.distinguished_name.push(DnType::OrganizationName, "second");
        });
        let mut replaced = two.clone();
        // The attribute's OID ends in 10 for an organization and in 3 for a Common Name.
        let organization = [0x06, 0x03, 0x55, 0x04, 0x0a];
        for at in 0..replaced.len() - organization.len() {
            if replaced[at..].starts_with(&organization) {
                replaced[at + 4] = 0x03;
            }
        }
        assert_ne!(replaced, two);
        assert_eq!(user_name(UserNameFrom::CommonName, &replaced), Err(NameError::Ambiguous));
        assert_eq!(Names::read(&replaced).unwrap().common_name, None);
        let mut broken = two;
        for at in 0..broken.len() - 5 {
            if broken[at..].starts_with(b"first") {
                broken[at] = 0xff;
            }
        }
        assert_eq!(user_name(UserNameFrom::CommonName, &broken), Err(NameError::NotText));
    }

    #[test]
    fn subjects_as_openssl_writes_them() {
        let der = der(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CountryName, "DE");
            name.push(DnType::OrganizationName, "Plant, \"One\"");
            name.push(DnType::OrganizationalUnitName, " #x ");
            name.push(DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), "u7");
            name.push(DnType::CommonName, "#Zä\u{1}");
            name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "own");
        });
        let expected = "1.2.3.4=#0C036F776E,CN=\\#Z\\C3\\A4\\01,UID=u7,OU=\\ #x\\ ,O=Plant\\, \\\"One\\\",C=DE";
        assert_eq!(Names::read(&der).unwrap().subject, expected);
        // Its escapes are visible, so the control character is none any more; what looks like a wildcard still does.
        assert_eq!(user_name(UserNameFrom::Subject, &der), Err(NameError::Wildcard));
    }

    #[test]
    fn alternative_names() {
        let of = |names: Vec<SanType>| der(|params| params.subject_alt_names = names);
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let from = UserNameFrom::SubjectAlternativeName;
        assert_eq!(user_name(from, &of(vec![dns("a.example")])), Ok(Some("a.example".to_owned())));
        assert_eq!(user_name(from, &of(vec![dns("a.example"), dns("b.example")])), Err(NameError::Ambiguous));
        assert_eq!(user_name(from, &of(Vec::new())), Err(NameError::Missing));
        assert_eq!(user_name(from, &of(vec![dns("*.example")])), Err(NameError::Wildcard));
        let address = SanType::IpAddress("2001:db8::7".parse().unwrap());
        assert_eq!(user_name(from, &of(vec![address])), Ok(Some("2001:db8::7".to_owned())));
        let uri = SanType::URI("spiffe://plant/sensor".try_into().unwrap());
        let names = Names::read(&of(vec![uri, dns("A.example")])).unwrap();
        assert_eq!(names.subject_alternative_names, ["spiffe://plant/sensor", "A.example"]);
        assert_eq!(dns_names(&of(vec![dns("A.example")])), ["a.example"]);
        // A DNS name that is no text, and a NUL in another.
        let raw = |name: &[u8]| {
            let mut value = vec![0x30, name.len() as u8 + 2, 0x82, name.len() as u8];
            value.extend_from_slice(name);
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], value);
            der(|params| params.custom_extensions.push(extension))
        };
        assert_eq!(user_name(from, &raw(b"a\xff")), Err(NameError::NotText));
        assert_eq!(user_name(from, &raw(b"a\0.example")), Err(NameError::Control));
    }

    proptest! {
        /// Whatever is in a certificate, nothing panics, and a name that is given has nothing in it that it must not have.
        #[test]
        fn any_bytes(cut in 0_usize..600, at in 0_usize..600, bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut der = der(|params| {
                params.distinguished_name.push(DnType::CommonName, "sensor");
                params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
            });
            for (offset, byte) in bytes.into_iter().enumerate() {
                if let Some(place) = der.get_mut(at + offset) {
                    *place = byte;
                }
            }
            if cut < der.len() / 4 {
                der.truncate(der.len() - cut);
            }
            drop(Names::read(&der));
            let _ = not_after(&der);
            dns_names(&der);
            for from in [UserNameFrom::CommonName, UserNameFrom::Subject, UserNameFrom::SubjectAlternativeName] {
                if let Ok(name) = user_name(from, &der) {
                    let name = name.unwrap();
                    prop_assert!(!name.is_empty() && !name.contains(['\0', '*', '+', '#', '\n']));
                }
            }
        }
    }
}
