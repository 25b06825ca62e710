//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), for the statements about enhanced authentication.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The name of the Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Most rounds of PBKDF2 this client is willing to do; a server that asks for more is not taken seriously.
const ITERATIONS_MAX: u32 = 1_000_000;

/// One exchange.
pub struct Exchange {
    password: String,
    nonce: String,
    client_first_bare: String,
    auth_message: String,
    salted_password: [u8; 32],
}

impl Exchange {
    /// Begins an exchange. `nonce` is any text without commas; a test wants a fresh one, not a secret one.
    pub fn new(user: &str, password: &str, nonce: &str) -> Exchange {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Exchange {
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            client_first_bare: format!("n={user},r={nonce}"),
            auth_message: String::new(),
            salted_password: [0; 32],
        }
    }

    /// The client's first message, for the Authentication Data of CONNECT.
    pub fn client_first(&self) -> Vec<u8> {
        format!("n,,{}", self.client_first_bare).into_bytes()
    }

    /// The client's last message in answer to the server's first one. The error says what is wrong with that.
    pub fn client_final(&mut self, server_first: &[u8]) -> Result<Vec<u8>, String> {
        let server_first = std::str::from_utf8(server_first).map_err(|_| "server-first-message is no text")?;
        let field = |name: &str| {
            server_first
                .split(',')
                .find_map(|f| f.strip_prefix(name))
                .ok_or_else(|| format!("server-first-message without {name}: {server_first}"))
        };
        let nonce = field("r=")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's nonce does not extend the client's".into());
        }
        let salt = BASE64.decode(field("s=")?).map_err(|e| format!("salt: {e}"))?;
        let iterations: u32 = field("i=")?.parse().map_err(|e| format!("iteration count: {e}"))?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!("iteration count {iterations}"));
        }
        self.salted_password = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(self.password.as_bytes(), &salt, iterations);
        let without_proof = format!("c={},r={nonce}", BASE64.encode("n,,"));
        self.auth_message = format!("{},{server_first},{without_proof}", self.client_first_bare);
        let client_key = hmac(&self.salted_password, b"Client Key");
        let signature = hmac(&Sha256::digest(client_key), self.auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(k, s)| k ^ s).collect();
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes())
    }

    /// Whether the server's last message proves that it knows the password too.
    pub fn verify(&self, server_final: &[u8]) -> Result<(), String> {
        let server_key = hmac(&self.salted_password, b"Server Key");
        let expected = format!("v={}", BASE64.encode(hmac(&server_key, self.auth_message.as_bytes())));
        if server_final == expected.as_bytes() {
            Ok(())
        } else {
            Err(format!("the server's signature is wrong: {}", String::from_utf8_lossy(server_final)))
        }
    }
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_exchange_of_the_rfc() {
        let mut exchange = Exchange::new("user", "pencil", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(exchange.client_first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server_first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = exchange.client_final(server_first).unwrap();
        assert_eq!(
            String::from_utf8(last).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        exchange.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(exchange.verify(b"v=AAAA").is_err());
    }

    #[test]
    fn a_server_that_does_not_extend_the_nonce_is_refused() {
        let mut exchange = Exchange::new("user", "pencil", "abc");
        assert!(exchange.client_final(b"r=abc,s=QQ==,i=4096").is_err());
        assert!(exchange.client_final(b"r=xyz,s=QQ==,i=4096").is_err());
    }
}
