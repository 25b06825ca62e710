//! Cipher suites by the names that OpenSSL and the standard have for them.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::cipher_suite as suites;

/// Every suite there is, with OpenSSL's name and the standard's, those of TLS 1.3 first. Of what both have, the client's order counts.
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
const EVERYTHING: [&str; 11] =
    ["ALL", "DEFAULT", "HIGH", "SECURE", "ECDH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "AEAD", "TLSv1.2"];

/// Words of OpenSSL's lists for some of the suites of TLS 1.2: what is in the names of those.
const GROUPS: [(&str, &str); 9] = [
    ("AES", "AES"),
    ("AES128", "AES128"),
    ("AES256", "AES256"),
    ("AESGCM", "GCM"),
    ("CHACHA20", "CHACHA20"),
    ("FIPS", "AES"),
    ("ECDSA", "ECDSA"),
    ("aECDSA", "ECDSA"),
    ("aRSA", "-RSA-"),
];

/// Whether a word of a list stands for a suite.
fn is_in(word: &str, openssl: &str, standard: &str) -> bool {
    let is_old = !openssl.starts_with("TLS_");
    let group = GROUPS.iter().find(|(name, _)| *name == word);
    let in_group = group.is_some_and(|(_, part)| is_old && openssl.contains(part));
    EVERYTHING.contains(&word) || in_group || openssl == word || standard == word
}

/// A list of names, as OpenSSL takes it: names between colons, commas or blanks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CipherList {
    /// OpenSSL's names of the suites that are in it and here, without those twice.
    pub known: Vec<&'static str>,
    /// What is not known here: other suites, and words for groups of them.
    pub unknown: Vec<String>,
}

impl CipherList {
    /// Reads a list. Words that `+` joins stand for the suites that all of them stand for, and what `!` or `-` is in front of is taken out, as
    /// far as it is of TLS 1.2. `@STRENGTH`, `@SECLEVEL=n` and a `+` in front are left alone: what is weak is not here anyway, and the order
    /// is the client's.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        let mut banned: Vec<&str> = Vec::new();
        for word in text.split([':', ',', ';', ' ', '\t']) {
            // `DEFAULT@SECLEVEL=1` is one word.
            let word = word.split('@').next().unwrap_or_default();
            let (mark, words) = match word.strip_prefix(['!', '-']) {
                Some(words) => (word.chars().next(), words),
                // This one puts what is there at the end.
                None if word.starts_with('+') => continue,
                None => (None, word),
            };
            if words.is_empty() {
                continue;
            }
            let matches = |(openssl, standard, _): &&(&'static str, &'static str, SupportedCipherSuite)| {
                words.split('+').all(|word| is_in(word, openssl, standard))
            };
            let found: Vec<&'static str> = ALL.iter().filter(matches).map(|(openssl, ..)| *openssl).collect();
            if let Some(mark) = mark {
                let taken_out = |name: &&str| found.contains(name) && !name.starts_with("TLS_");
                list.known.retain(|name| !taken_out(name));
                if mark == '!' {
                    banned.extend(found.iter().copied().filter(|name| taken_out(name)));
                }
                continue;
            }
            for name in &found {
                if !list.known.contains(name) && !banned.contains(name) {
                    list.known.push(name);
                }
            }
            if found.is_empty() {
                list.unknown.push(words.to_owned());
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

    /// Lists that are recommended on many a page, and that were refused.
    #[test]
    fn lists_of_words_for_groups() {
        const GCM: [&str; 4] = [
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES128-GCM-SHA256",
        ];
        const CHACHA: [&str; 2] = ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"];
        const ALL_OF_TLS_12: usize = 6;
        for (text, known, unknown) in [
            ("ECDHE+AESGCM", &GCM[..], &[] as &[&str]),
            ("EECDH+AESGCM:EDH+AESGCM", &GCM, &["EDH+AESGCM"]),
            ("AESGCM", &GCM, &[]),
            ("CHACHA20", &CHACHA, &[]),
            ("HIGH+AES128+aRSA", &GCM[3..], &[]),
            ("kEECDH+CHACHA20:@STRENGTH", &CHACHA, &[]),
            ("AESGCM:!aECDSA:!aNULL:!MD5", &GCM[2..], &[]),
            ("!aECDSA:AESGCM", &GCM[2..], &[]),
            ("AESGCM:-aRSA:ECDHE-RSA-AES256-GCM-SHA384", &GCM[..3], &[]),
            ("RC4+SHA", &[], &["RC4+SHA"]),
            ("CHACHA20:!ECDHE", &[], &[]),
        ] {
            let list = CipherList::parse(text);
            assert_eq!(list.known, known, "{text}");
            assert_eq!(list.unknown, unknown, "{text}");
        }
        for text in ["TLSv1.2+HIGH", "DEFAULT@SECLEVEL=1", "kEECDH", "HIGH:!aNULL:!eNULL:!3DES:!kRSA:@SECLEVEL=2"] {
            let list = CipherList::parse(text);
            let old = list.known.iter().filter(|name| !name.starts_with("TLS_"));
            assert_eq!((old.count(), list.unknown.len()), (ALL_OF_TLS_12, 0), "{text}");
        }
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
