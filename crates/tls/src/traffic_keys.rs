//! Traffic keys of TLS 1.3 that are small while they are idle.
//!
//! A key that is ready for use has its schedule and its tables beside it, some 600 bytes, and a connection has two. Most connections of a
//! broker are idle most of the time. So a connection keeps its bare keys, and each thread makes those ready that it uses: they wait for the
//! next record in a table of a fixed size, until they are over or another connection's take their place. Those of a connection that has gone to
//! another thread wait for the latter.

use std::cell::RefCell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead;
use rustls::crypto::CipherSuiteCommon;
use rustls::crypto::aws_lc_rs::cipher_suite as suites;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError,
    make_tls13_aad,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite};

/// Keys that one thread keeps ready, at most: those of 512 connections that have come one after the other, in some 700 kB.
const READY_KEYS_MAX: usize = 1_024;
/// Places that a key may have. A handshake takes so many numbers, for two keys of its own and two that stay.
const WAYS: usize = 4;

/// The suite with keys of this kind instead of rustls' own; those of TLS 1.2 as they are, since their keys cannot be told apart here.
pub(crate) fn with_small_keys(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    SUITES.iter().find(|ours| ours.common.suite == suite.suite()).map_or(suite, SupportedCipherSuite::Tls13)
}

static SUITES: LazyLock<[Tls13CipherSuite; 3]> = LazyLock::new(|| {
    [
        small(suites::TLS13_AES_256_GCM_SHA384, &Algorithm(&aead::AES_256_GCM)),
        small(suites::TLS13_AES_128_GCM_SHA256, &Algorithm(&aead::AES_128_GCM)),
        small(suites::TLS13_CHACHA20_POLY1305_SHA256, &Algorithm(&aead::CHACHA20_POLY1305)),
    ]
});

fn small(suite: SupportedCipherSuite, aead_alg: &'static Algorithm) -> Tls13CipherSuite {
    let suite = suite.tls13().expect("it is one of TLS 1.3");
    let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit } = suite.common;
    Tls13CipherSuite {
        common: CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit },
        hkdf_provider: suite.hkdf_provider,
        aead_alg,
        quic: None,
    }
}

struct Algorithm(&'static aead::Algorithm);

impl Tls13AeadAlgorithm for Algorithm {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(TrafficKey::new(self.0, key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(TrafficKey::new(self.0, key, iv))
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// The key of one direction of a connection.
struct TrafficKey {
    algorithm: &'static aead::Algorithm,
    key: AeadKey,
    iv: Iv,
    /// No other key of this process has it.
    id: u64,
}

thread_local! {
    /// Keys that this thread has used, each where its number says.
    static READY: RefCell<Vec<Option<(u64, aead::LessSafeKey)>>> = const { RefCell::new(Vec::new()) };
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// The first of the places of a key.
#[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
const fn first_place(id: u64) -> usize {
    let sets = (READY_KEYS_MAX / WAYS) as u64;
    (id / WAYS as u64 % sets) as usize * WAYS
}

impl TrafficKey {
    fn new(algorithm: &'static aead::Algorithm, key: AeadKey, iv: Iv) -> Self {
        Self { algorithm, key, iv, id: NEXT_ID.fetch_add(1, Ordering::Relaxed) }
    }

    /// Uses the key, which is made ready if it is not.
    fn with<R>(&self, use_key: impl FnOnce(&aead::LessSafeKey) -> R) -> Result<R, aws_lc_rs::error::Unspecified> {
        READY.with_borrow_mut(|ready| {
            let first = first_place(self.id);
            if ready.len() < first + WAYS {
                ready.resize_with(first + WAYS, || None);
            }
            let places = &mut ready[first..first + WAYS];
            if let Some((_, key)) = places.iter().flatten().find(|(id, _)| *id == self.id) {
                return Ok(use_key(key));
            }
            let key = aead::LessSafeKey::new(aead::UnboundKey::new(self.algorithm, self.key.as_ref())?);
            // A free one, or else always the same, so that others stay.
            let place = places.iter().position(Option::is_none).unwrap_or(self.id as usize % WAYS);
            let (_, key) = places[place].insert((self.id, key));
            Ok(use_key(key))
        })
    }

    /// The nonce of a record. rustls counts the records of a key, and never gives a number twice.
    fn nonce(&self, sequence: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, sequence).0)
    }
}

impl Drop for TrafficKey {
    fn drop(&mut self) {
        // A thread that has no table any more has no key either.
        let _ = READY.try_with(|ready| {
            for place in ready.borrow_mut().iter_mut().skip(first_place(self.id)).take(WAYS) {
                place.take_if(|(id, _)| *id == self.id);
            }
        });
    }
}

impl MessageEncrypter for TrafficKey {
    /// `TLSCiphertext` of RFC 8446, 5.2: the content, its type, and a tag.
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, sequence: u64) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let additional = aead::Aad::from(make_tls13_aad(length));
        let nonce = self.nonce(sequence);
        self.with(|key| key.seal_in_place_append_tag(nonce, additional, &mut payload))
            .and_then(|sealed| sealed)
            .map_err(|_| Error::EncryptError)?;
        // The version that all records of TLS 1.3 have.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + 1 + self.algorithm.tag_len()
    }
}

impl MessageDecrypter for TrafficKey {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let additional = aead::Aad::from(make_tls13_aad(message.payload.len()));
        let nonce = self.nonce(sequence);
        let payload = &mut message.payload;
        let length = self
            .with(|key| key.open_in_place(nonce, additional, payload).map(|plain| plain.len()))
            .and_then(|opened| opened)
            .map_err(|_| Error::DecryptError)?;
        payload.truncate(length);
        message.into_tls13_unpadded_message()
    }
}
