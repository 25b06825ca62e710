//! What stands between MQTT and the socket of a connection: TLS or WebSocket, the client's end.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme};

use crate::fault::Fault;
use crate::features::Transport;

/// The answer of a broker to the request for WebSocket is not longer.
const RESPONSE_BYTES_MAX: usize = 4096;
/// All frames are masked with this. The receiver's work is the same with any.
const MASK: [u8; 4] = [0x5A, 0xC3, 0x96, 0x0F];
/// FIN and the operation "binary".
const BINARY: u8 = 0x82;

/// One of them, after its handshake.
#[derive(Debug)]
pub enum Stage {
    /// A TLS session.
    Tls(Box<ClientConnection>),
    /// A WebSocket, with the bytes of a frame that has not come to its end.
    WebSocket(Vec<u8>),
}

impl Stage {
    /// Shakes hands on a socket that blocks; nothing stands between with [`Transport::Plain`].
    pub fn establish(transport: Transport, stream: &mut TcpStream) -> Result<Option<Self>, Fault> {
        match transport {
            Transport::Plain => Ok(None),
            Transport::Tls | Transport::TlsResumed => {
                let name = ServerName::try_from("localhost").map_err(|_| Fault::Malformed)?;
                // Nobody has a ticket until the first connections have read theirs.
                let has_ticket = transport == Transport::TlsResumed && !tickets().is_empty();
                let session = ClientConnection::new(configuration(transport == Transport::TlsResumed), name);
                let mut session = Box::new(session.map_err(|_| Fault::Io(io::ErrorKind::InvalidInput))?);
                session.set_buffer_limit(None);
                while session.is_handshaking() {
                    session.complete_io(stream)?;
                }
                if has_ticket && session.handshake_kind() != Some(HandshakeKind::Resumed) {
                    return Err(Fault::NotResumed);
                }
                Ok(Some(Self::Tls(session)))
            }
            Transport::WebSocket => {
                stream.write_all(
                    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\
                      Sec-WebSocket-Protocol: mqtt\r\n\r\n",
                )?;
                let mut response = Vec::new();
                while !response.ends_with(b"\r\n\r\n") {
                    // Byte by byte, so that none of a frame behind it is taken.
                    let mut byte = [0];
                    stream.read_exact(&mut byte)?;
                    response.push(byte[0]);
                    if response.len() > RESPONSE_BYTES_MAX {
                        return Err(Fault::Malformed);
                    }
                }
                if !response.starts_with(b"HTTP/1.1 101 ") {
                    return Err(Fault::Malformed);
                }
                Ok(Some(Self::WebSocket(Vec::new())))
            }
        }
    }

    /// Appends to `wire` what `mqtt` is on the wire.
    pub fn seal(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Self::Tls(session) => {
                session.writer().write_all(mqtt)?;
                while session.wants_write() {
                    session.write_tls(wire)?;
                }
            }
            Self::WebSocket(_) => {
                wire.push(BINARY);
                match mqtt.len() {
                    length @ ..=125 => wire.push(0x80 | length as u8),
                    length @ ..=0xFFFF => {
                        wire.push(0x80 | 126);
                        wire.extend_from_slice(&(length as u16).to_be_bytes());
                    }
                    length => {
                        wire.push(0x80 | 127);
                        wire.extend_from_slice(&(length as u64).to_be_bytes());
                    }
                }
                wire.extend_from_slice(&MASK);
                wire.extend(mqtt.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            }
        }
        Ok(())
    }

    /// Appends to `mqtt` what the bytes from the wire carry.
    pub fn open(&mut self, mut wire: &[u8], mqtt: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Self::Tls(session) => {
                while !wire.is_empty() {
                    if session.read_tls(&mut wire)? == 0 {
                        return Err(Fault::ConnectionClosed);
                    }
                    let state = session.process_new_packets().map_err(|_| Fault::Malformed)?;
                    let begin = mqtt.len();
                    mqtt.resize(begin + state.plaintext_bytes_to_read(), 0);
                    session.reader().read_exact(&mut mqtt[begin..])?;
                }
            }
            Self::WebSocket(rest) => {
                rest.extend_from_slice(wire);
                let mut at = 0;
                while let Some((payload, end)) = split_websocket_frame(&rest[at..])? {
                    mqtt.extend_from_slice(&rest[at + payload..at + end]);
                    at += end;
                }
                rest.drain(..at);
            }
        }
        Ok(())
    }
}

/// Where the payload of the first frame begins, and where it ends; None if that has not come.
fn split_websocket_frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    // The broker sends no fragments, and a benchmark gives it no reason for a ping.
    if first != BINARY {
        return Err(Fault::Unexpected(first));
    }
    let (length, begin): (usize, usize) = match second {
        126 => match rest.first_chunk() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length)).map_err(|_| Fault::Malformed)?, 10),
            None => return Ok(None),
        },
        ..=125 => (usize::from(second), 2),
        // A broker does not mask.
        _ => return Err(Fault::Malformed),
    };
    let end = begin.checked_add(length).ok_or(Fault::Malformed)?;
    Ok((end <= bytes.len()).then_some((begin, end)))
}

fn configuration(resumes: bool) -> Arc<ClientConfig> {
    static FULL: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    static RESUMED: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("the provider has what the defaults need");
        let verifier = Arc::new(Unverified(provider));
        let mut configuration = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        configuration.alpn_protocols = vec![b"mqtt".to_vec()];
        configuration.resumption =
            if resumes { Resumption::store(Arc::new(AllTickets)) } else { Resumption::disabled() };
        Arc::new(configuration)
    };
    Arc::clone(if resumes { RESUMED.get_or_init(make) } else { FULL.get_or_init(make) })
}

static TICKETS: Mutex<Vec<Tls13ClientSessionValue>> = Mutex::new(Vec::new());

fn tickets() -> MutexGuard<'static, Vec<Tls13ClientSessionValue>> {
    TICKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets the tickets of a broker before, which another one has no key for.
pub fn forget_tickets() {
    tickets().clear();
}

/// Keeps all tickets. Each connection uses one and brings at least one.
#[derive(Debug)]
struct AllTickets;

impl ClientSessionStore for AllTickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        tickets().push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        tickets().pop()
    }
}

/// Believes every certificate: the broker is a child of ours.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cut_anywhere_are_read_and_masked_ones_written() {
        let mut wire = Vec::new();
        for payload in [&[1; 5][..], &[2; 126], &[3; 70_000]] {
            match payload.len() {
                5 => wire.extend([BINARY, 5]),
                126 => wire.extend([BINARY, 126, 0, 126]),
                length => {
                    wire.extend([BINARY, 127]);
                    wire.extend((length as u64).to_be_bytes());
                }
            }
            wire.extend(payload);
        }
        for cut in [1, 3, 7, 9, 100, 140, 5_000] {
            let (mut stage, mut mqtt) = (Stage::WebSocket(Vec::new()), Vec::new());
            stage.open(&wire[..cut], &mut mqtt).unwrap();
            stage.open(&wire[cut..], &mut mqtt).unwrap();
            assert_eq!(mqtt, [&[1; 5][..], &[2; 126], &[3; 70_000]].concat(), "cut at {cut}");
        }
        let (mut stage, mut sealed) = (Stage::WebSocket(Vec::new()), Vec::new());
        stage.seal(&[0x10, 0x20, 0x30, 0x40, 0x50], &mut sealed).unwrap();
        assert_eq!(sealed, [0x82, 0x85, 0x5A, 0xC3, 0x96, 0x0F, 0x4A, 0xE3, 0xA6, 0x4F, 0x0A]);
    }

    #[test]
    fn what_a_broker_must_not_send_is_a_fault() {
        let open = |bytes: &[u8]| Stage::WebSocket(Vec::new()).open(bytes, &mut Vec::new());
        assert_eq!(open(&[0x81, 0]), Err(Fault::Unexpected(0x81)));
        assert_eq!(open(&[BINARY, 0x80 | 1, 0, 0, 0, 0, 1]), Err(Fault::Malformed));
    }
}
