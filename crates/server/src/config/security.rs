//! Security domains: who may come in by which proof. What was written, and what it means.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pantala_identity::chain::BackEnd;
use pantala_identity::http::Format;
use pantala_identity::jwt::{Algorithm, Rules};

use super::error::{ConfigError, Fault, Origin};

/// The name of the domain of listeners that do not name one.
pub const DEFAULT_DOMAIN: &str = "default";

/// The most domains: as many as a number of 16 bits can tell apart would be too many to read.
pub(super) const DOMAINS_MAX: usize = 1_024;

/// One set of users: how they prove who they are, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityDomain {
    /// Its name in listeners and logs.
    pub name: String,
    /// The back ends that are asked, in order.
    pub chain: Vec<BackEnd>,
    /// Users in Mosquitto's format.
    pub password_file: Option<PathBuf>,
    /// Mosquitto's ACL file.
    pub acl_file: Option<PathBuf>,
    /// Rules in TOML.
    pub rules_file: Option<PathBuf>,
    /// Users, groups and roles of Mosquitto's dynamic security.
    pub dynamic_security_file: Option<PathBuf>,
    /// JSON Web Tokens.
    pub jwt: Option<Jwt>,
    /// An HTTP service that knows users.
    pub http: Option<Http>,
}

impl SecurityDomain {
    /// The domain that is there without being written: nobody can prove anything.
    pub(super) fn unwritten() -> Self {
        Self {
            name: DEFAULT_DOMAIN.to_owned(),
            chain: vec![BackEnd::Certificate],
            password_file: None,
            acl_file: None,
            rules_file: None,
            dynamic_security_file: None,
            jwt: None,
            http: None,
        }
    }

    /// Whether user names and passwords, or tokens, can be verified.
    pub fn verifies(&self) -> bool {
        self.chain.iter().any(|back_end| *back_end != BackEnd::Certificate)
    }
}

/// Where the keys come from, and what tokens have to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// Where the keys come from.
    pub keys: JwtKeys,
    /// Keys of a URL are fetched again after this time.
    pub refresh_after: Duration,
    /// What tokens have to say.
    pub rules: Rules,
}

/// Where the keys of tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// A key set (JWKS), fetched.
    Url {
        /// From where.
        url: String,
        /// Certificates of authorities in place of the system's, in PEM.
        ca_file: Option<PathBuf>,
    },
    /// A key set in a file.
    SetFile(PathBuf),
    /// A public key in a PEM file.
    PublicKeyFile(PathBuf),
    /// The secret of an HMAC: all bytes of a file but a line feed at its end.
    SecretFile(PathBuf),
}

/// An HTTP back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where it is asked.
    pub url: String,
    /// How it is asked.
    pub format: Format,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long answers are kept.
    pub keep: Duration,
    /// A file with the value of the `Authorization` header.
    pub authorization_file: Option<PathBuf>,
    /// Certificates of authorities in place of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
}

/// Bounds of verification, for the whole broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verification {
    /// Threads that hash passwords. None, the default: half as many as there are cores, one at least.
    pub threads: Option<usize>,
    /// Requests to HTTP back ends at once. Default 32.
    pub http_requests_max: usize,
    /// Verifications that may wait, of each of both kinds. Default 1 024.
    pub waiting_max: usize,
    /// How long a password that was right is known without being hashed again. Default 60 s.
    pub keep: Duration,
    /// How many answers are kept for that, in each domain. Default 16 384.
    pub kept_max: usize,
    /// Back-off after failures.
    pub brake: pantala_identity::brake::Limits,
}

impl Default for Verification {
    fn default() -> Self {
        Self {
            threads: None,
            http_requests_max: 32,
            waiting_max: 1_024,
            keep: Duration::from_secs(60),
            kept_max: 16_384,
            brake: pantala_identity::brake::Limits::default(),
        }
    }
}

/// A `[[security]]` as it was written.
pub(super) struct SecurityDraft {
    pub origin: Origin,
    /// Where directives of a mosquitto.conf name its files, by our keys.
    pub places: Vec<(&'static str, Origin)>,
    pub name: Option<String>,
    pub chain: Option<Vec<BackEnd>>,
    pub password_file: Option<PathBuf>,
    pub acl_file: Option<PathBuf>,
    pub rules_file: Option<PathBuf>,
    pub dynamic_security_file: Option<PathBuf>,
    pub jwt_jwks_url: Option<String>,
    pub jwt_jwks_file: Option<PathBuf>,
    pub jwt_public_key_file: Option<PathBuf>,
    pub jwt_secret_file: Option<PathBuf>,
    pub jwt_refresh_seconds: u32,
    pub jwt_rules: Rules,
    /// A key that only makes sense with tokens.
    pub jwt_seen: bool,
    pub http_url: Option<String>,
    pub http_format: Format,
    pub http_timeout_seconds: u32,
    pub http_cache_seconds: u32,
    pub http_authorization_file: Option<PathBuf>,
    pub http_ca_file: Option<PathBuf>,
    /// A key that only makes sense with an HTTP back end.
    pub http_seen: bool,
}

impl SecurityDraft {
    pub fn new(origin: Origin) -> Self {
        Self {
            origin,
            places: Vec::new(),
            name: None,
            chain: None,
            password_file: None,
            acl_file: None,
            rules_file: None,
            dynamic_security_file: None,
            jwt_jwks_url: None,
            jwt_jwks_file: None,
            jwt_public_key_file: None,
            jwt_secret_file: None,
            jwt_refresh_seconds: 3_600,
            jwt_rules: Rules::default(),
            jwt_seen: false,
            http_url: None,
            http_format: Format::Json,
            http_timeout_seconds: 5,
            http_cache_seconds: 30,
            http_authorization_file: None,
            http_ca_file: None,
            http_seen: false,
        }
    }

    /// Remembers what kind of key was written.
    pub fn note(&mut self, key: &'static str, _: Origin) {
        self.jwt_seen |= key.starts_with("jwt_");
        self.http_seen |= key.starts_with("http_") && key != "http_ca_file";
    }

    fn finish(self) -> Result<SecurityDomain, ConfigError> {
        const SECTION: &str = "[[security]]";
        let error = |fault| ConfigError::new(self.origin.clone(), fault);
        // Whoever knows a user knows its password, and one place says what it may do.
        let files = [
            ("dynamic_security_file", self.dynamic_security_file.is_some()),
            ("password_file", self.password_file.is_some()),
            ("acl_file", self.acl_file.is_some()),
            ("rules_file", self.rules_file.is_some()),
        ];
        for (one, other) in [(0, 1), (0, 2), (0, 3), (2, 3)] {
            if files[one].1 && files[other].1 {
                let (one, other) = (files[one].0, files[other].0);
                return Err(error(Fault::Exclusive { one, other, section: SECTION }));
            }
        }
        let sources = [
            ("jwt_jwks_url", self.jwt_jwks_url.map(|url| JwtKeys::Url { url, ca_file: self.http_ca_file.clone() })),
            ("jwt_jwks_file", self.jwt_jwks_file.map(JwtKeys::SetFile)),
            ("jwt_public_key_file", self.jwt_public_key_file.map(JwtKeys::PublicKeyFile)),
            ("jwt_secret_file", self.jwt_secret_file.map(JwtKeys::SecretFile)),
        ];
        let mut keys = None;
        for (name, source) in sources {
            match (&keys, source) {
                (_, None) => {}
                (None, Some(source)) => keys = Some((name, source)),
                (Some((one, _)), Some(_)) => {
                    return Err(error(Fault::Exclusive { one, other: name, section: SECTION }));
                }
            }
        }
        let jwt = match keys {
            Some((_, keys)) => {
                let refresh_after = Duration::from_secs(self.jwt_refresh_seconds.into());
                Some(Jwt { keys, refresh_after, rules: self.jwt_rules })
            }
            None if self.jwt_seen => return Err(error(Fault::Missing { key: "jwt_jwks_url", section: SECTION })),
            None => None,
        };
        let has_ca_file = self.http_ca_file.is_some();
        let http = match self.http_url {
            Some(url) => Some(Http {
                url,
                format: self.http_format,
                timeout: Duration::from_secs(self.http_timeout_seconds.into()),
                keep: Duration::from_secs(self.http_cache_seconds.into()),
                authorization_file: self.http_authorization_file,
                ca_file: self.http_ca_file,
            }),
            None if self.http_seen => return Err(error(Fault::Missing { key: "http_url", section: SECTION })),
            None => None,
        };
        let fetches = jwt.as_ref().is_some_and(|jwt| matches!(jwt.keys, JwtKeys::Url { .. }));
        if has_ca_file && http.is_none() && !fetches {
            let unless = "there is \"http_url\" or \"jwt_jwks_url\"";
            return Err(error(Fault::NoEffect { key: "http_ca_file", unless }));
        }
        let has = |back_end: BackEnd| match back_end {
            BackEnd::Certificate => true,
            BackEnd::Jwt => jwt.is_some(),
            BackEnd::Password => self.password_file.is_some() || self.dynamic_security_file.is_some(),
            BackEnd::Http => http.is_some(),
        };
        let chain = match self.chain {
            None => BackEnd::ALL.into_iter().filter(|back_end| has(*back_end)).collect(),
            Some(chain) => {
                for (index, back_end) in chain.iter().enumerate() {
                    if chain[..index].contains(back_end) {
                        return Err(error(Fault::Twice { what: format!("\"{}\" in \"chain\"", back_end.name()) }));
                    }
                    let key = match back_end {
                        _ if has(*back_end) => continue,
                        BackEnd::Jwt => "jwt_jwks_url",
                        BackEnd::Http => "http_url",
                        _ => "password_file",
                    };
                    return Err(error(Fault::Missing { key, section: SECTION }));
                }
                // What is configured and never asked is a mistake.
                if let Some(left_out) = BackEnd::ALL
                    .into_iter()
                    .find(|back_end| *back_end != BackEnd::Certificate && has(*back_end) && !chain.contains(back_end))
                {
                    let given = chain.iter().map(|back_end| back_end.name()).collect::<Vec<_>>().join(", ");
                    let reason = match left_out {
                        BackEnd::Jwt => "it leaves out \"jwt\", which is configured",
                        BackEnd::Http => "it leaves out \"http\", which is configured",
                        _ => "it leaves out \"password\", which is configured",
                    };
                    return Err(error(Fault::BadText { key: "chain".to_owned(), given, reason }));
                }
                chain
            }
        };
        Ok(SecurityDomain {
            name: self.name.unwrap_or_else(|| DEFAULT_DOMAIN.to_owned()),
            chain,
            password_file: self.password_file,
            acl_file: self.acl_file,
            rules_file: self.rules_file,
            dynamic_security_file: self.dynamic_security_file,
            jwt,
            http,
        })
    }
}

/// The domains, and the default one if it is not written: the first then.
pub(super) fn domains(drafts: Vec<SecurityDraft>) -> Result<Vec<SecurityDomain>, ConfigError> {
    let mut domains: Vec<SecurityDomain> = Vec::with_capacity(drafts.len() + 1);
    for draft in drafts {
        let origin = draft.origin.clone();
        let domain = draft.finish()?;
        if domains.iter().any(|other| other.name == domain.name) {
            let what = format!("security domain \"{}\"", domain.name.escape_debug());
            return Err(ConfigError::new(origin, Fault::Twice { what }));
        }
        if domains.len() >= DOMAINS_MAX {
            let given = domains.len() as u64 + 1;
            let fault = Fault::Above { key: "[[security]]", given, bound: "the most", bound_value: DOMAINS_MAX as u64 };
            return Err(ConfigError::new(origin, fault));
        }
        domains.push(domain);
    }
    if !domains.iter().any(|domain| domain.name == DEFAULT_DOMAIN) {
        domains.insert(0, SecurityDomain::unwritten());
    }
    Ok(domains)
}

/// The names by which the core keeps what belongs to users, in the order of the domains. The default one has none: whoever adds
/// another does not rename it.
pub(super) fn stored_names(domains: &[SecurityDomain]) -> Vec<String> {
    // It is the default one then.
    if domains.len() < 2 {
        return Vec::new();
    }
    let stored = |domain: &SecurityDomain| if domain.name == DEFAULT_DOMAIN { "" } else { &domain.name }.to_owned();
    domains.iter().map(stored).collect()
}

/// The algorithms by these names, which are known.
pub(super) fn algorithms(names: &[&str]) -> Vec<Algorithm> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

impl fmt::Display for SecurityDomain {
    /// One line without secrets: the name, and what is asked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "security \"{}\"", self.name.escape_debug())?;
        for back_end in &self.chain {
            match (back_end, &self.jwt, &self.http, &self.password_file) {
                (BackEnd::Password, _, _, Some(path)) => write!(f, ", password file {}", path.display())?,
                (BackEnd::Jwt, Some(jwt), ..) => match &jwt.keys {
                    JwtKeys::Url { url, .. } => write!(f, ", tokens with keys of {}", without_secrets(url))?,
                    JwtKeys::SetFile(path) | JwtKeys::PublicKeyFile(path) => {
                        write!(f, ", tokens with keys of {}", path.display())?;
                    }
                    JwtKeys::SecretFile(path) => write!(f, ", tokens with the secret of {}", path.display())?,
                },
                (BackEnd::Http, _, Some(http), _) => write!(f, ", {}", without_secrets(&http.url))?,
                _ => {}
            }
        }
        if let Some(path) = &self.acl_file {
            write!(f, ", ACL file {}", path.display())?;
        }
        if let Some(path) = &self.rules_file {
            write!(f, ", rules file {}", path.display())?;
        }
        if let Some(path) = &self.dynamic_security_file {
            write!(f, ", dynamic security {}", path.display())?;
        }
        Ok(())
    }
}

/// A URL without user, password and query, where tokens hide. Of a text that is no URL, less: what might be secret is left out.
pub(crate) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let scheme = if is_scheme { format!("{scheme}://") } else { String::new() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // A password may have what ends a host, and its end is a sign behind that.
    match (host.len() == authority.len() && rest.contains('@'), path.contains('@')) {
        (true, _) => format!("{scheme}…"),
        (false, true) => format!("{scheme}{host}/…"),
        (false, false) => format!("{scheme}{host}{path}"),
    }
}

/// A URL that can be asked.
pub(super) fn http_url(text: String) -> Result<String, &'static str> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        None => Err("it has to begin with http:// or https://"),
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => Err("it has no host"),
        Some(_) if text.contains(|character: char| character.is_whitespace() || character.is_control()) => {
            Err("a URL has no spaces")
        }
        Some(_) if text.parse::<ureq::http::Uri>().is_err() => Err("it is no URL"),
        Some(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("https://u:p@h:1/a/b?token=x#y", "https://h:1/a/b"),
            ("http://h", "http://h"),
            ("http://h/a#b", "http://h/a"),
            // Where a password may end is not always clear.
            ("http://h?k=/x@y", "http://…"),
            ("http://u:p?q@h/a", "http://…"),
            ("http://u:p/q@h/a", "http://…"),
            ("http://a@b@h/p@q", "http://h/…"),
            // What is no URL.
            ("https://svc:s3cret@auth/ x", "https://auth/ x"),
            ("svc:s3cret@auth", "auth"),
            ("https:/svc:s3cret@auth", "…"),
            ("svc:s3cret@https://auth/a", "auth/a"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
        for url in ["ftp://h", "http://", "https:///p", "http://a b", "h", "http://[::1/"] {
            assert!(http_url(url.to_owned()).is_err(), "{url}");
        }
    }
}
