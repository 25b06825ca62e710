//! Cipher suites by the names that OpenSSL and the standard have for them.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite as suites;

/// Every suite there is, with OpenSSL's name and the standard's, in our order of preference. The first three are those of TLS 1.3.
pub const ALL: [(&str, &str, SupportedCipherSuite); 9] = [
    ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", suites::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", suites::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256", suites::TLS13_CHACHA20_POLY1305_SHA256),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// OpenSSL's names of all suites, in the order of [`ALL`].
pub const NAMES: [&str; ALL.len()] = {
    let mut names = [""; ALL.len()];
    let mut index = 0;
    while index < ALL.len() {
        names[index] = ALL[index].0;
        index += 1;
    }
    names
};

/// Words of OpenSSL's lists that leave all of ours in.
const EVERYTHING: [&str; 8] = ["ALL", "DEFAULT", "HIGH", "SECURE", "ECDHE", "EECDH", "AEAD", "TLSv1.2"];

/// A list of names, as OpenSSL takes it: names between colons, commas or blanks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CipherList {
    /// OpenSSL's names of the suites that are in it and here, without those twice.
    pub known: Vec<&'static str>,
    /// What is not known here: other suites, and words for groups of them.
    pub unknown: Vec<String>,
}

impl CipherList {
    /// Reads a list. What is taken out of it by `!` or `-`, and `@STRENGTH`, is left alone: what is weak is not here anyway, and
    /// the order is ours.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for word in text.split([':', ',', ' ', '\t']).filter(|word| !word.is_empty()) {
            if word.starts_with(['!', '-', '@']) {
                continue;
            }
            let word = word.trim_start_matches('+');
            let matches = |(openssl, standard, _): &&(&'static str, &'static str, SupportedCipherSuite)| {
                EVERYTHING.contains(&word) || *openssl == word || *standard == word
            };
            let before = list.known.len();
            let mut found = false;
            for (openssl, ..) in ALL.iter().filter(matches) {
                found = true;
                if !list.known[..before].contains(openssl) {
                    list.known.push(openssl);
                }
            }
            if !found {
                list.unknown.push(word.to_owned());
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let list = CipherList::parse("ECDHE-RSA-AES128-GCM-SHA256:AES256-SHA:!aNULL:TLS_AES_128_GCM_SHA256 @STRENGTH");
        assert_eq!(list.known, ["ECDHE-RSA-AES128-GCM-SHA256", "TLS_AES_128_GCM_SHA256"]);
        assert_eq!(list.unknown, ["AES256-SHA"]);
        let list = CipherList::parse("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,HIGH");
        assert_eq!(list.known.len(), ALL.len());
        assert!(list.unknown.is_empty());
    }

    /// A suite that a new rustls brings is not left out unseen.
    #[test]
    fn all_suites_are_here() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        for suite in &provider.cipher_suites {
            assert!(ALL.iter().any(|(.., ours)| ours == suite), "{suite:?}");
        }
        assert_eq!(provider.cipher_suites.len(), ALL.len());
    }
}
