//! One TLS connection.

use std::fmt;

use rustls::HandshakeKind;
use rustls::pki_types::UnixTime;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic};

use crate::settings::Configuration;
use crate::{Failure, Names, names};

/// Most bytes of an unfinished record or handshake message that are held: a message may have 64 KiB, in records that may have one
/// byte each.
const INPUT_BYTES_MAX: usize = 7 * 65_536;
/// What encrypting adds to each 16 KiB, and more.
const RECORD_OVERHEAD: usize = 64;
const RECORD_BYTES: usize = 16_384;

/// How a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on; the handshake may not be over.
    Open,
    /// The client has said close_notify: nothing more will come.
    Ended,
    /// It is of no use. What the client is to be told is in the output.
    Failed(Failure),
}

/// The server's end of one connection. Some 1 100 bytes, and again as many on the heap (twice with TLS 1.2): to be kept in a box.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// Bytes from the client that are no whole record, or message, yet.
    input: Box<[u8]>,
    first_byte: Option<u8>,
    progress: Progress,
    /// The handshake is over.
    established: bool,
    any_date: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Session {
    /// A session whose client has not said anything.
    ///
    /// # Panics
    /// Never: what can be wrong with a configuration was found when it was built.
    pub fn new(configuration: &Configuration) -> Self {
        let connection = UnbufferedServerConnection::new(configuration.server.clone());
        Self {
            connection: connection.expect("there is no fragment size to be wrong"),
            input: Box::default(),
            first_byte: None,
            progress: Progress::Open,
            established: false,
            any_date: configuration.any_date,
        }
    }

    /// Takes bytes of the client, which are scratch afterwards. What it said goes to `inward`, what it is to be sent to `outward`.
    pub fn receive(&mut self, bytes: &mut [u8], inward: &mut Vec<u8>, outward: &mut Vec<u8>) -> Progress {
        if self.progress != Progress::Open {
            return self.progress;
        }
        self.first_byte = self.first_byte.or(bytes.first().copied());
        if self.input.is_empty() {
            let used = self.process(bytes, inward, outward);
            self.input = bytes.get(used..).unwrap_or_default().into();
        } else {
            let mut input = std::mem::take(&mut self.input).into_vec();
            input.extend_from_slice(bytes);
            let used = self.process(&mut input, inward, outward);
            // An idle connection holds no buffer.
            if used < input.len() {
                input.drain(..used);
                self.input = input.into();
            }
        }
        if self.progress != Progress::Open {
            self.input = Box::default();
        } else if self.input.len() > INPUT_BYTES_MAX {
            self.progress = Progress::Failed(Failure::TOO_LARGE);
        }
        self.progress
    }

    /// Returns how many bytes are done with.
    fn process(&mut self, input: &mut [u8], inward: &mut Vec<u8>, outward: &mut Vec<u8>) -> usize {
        let (mut used, before) = (0, inward.len());
        loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(rest);
            let mut go_on = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        inward.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode_handshake(&mut data, outward);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.progress = Progress::Ended,
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.established = true;
                    go_on = false;
                }
                // Early data is never offered.
                Ok(_) => go_on = false,
                Err(error) => {
                    let failure = Failure::of(&error, self.first_byte.unwrap_or_default(), self.established);
                    self.progress = Progress::Failed(failure);
                }
            }
            used += discard;
            // What the client is to be told comes in further rounds; beyond them the bytes must not be looked at again.
            if !go_on || matches!(self.progress, Progress::Failed(_)) && !self.connection.wants_write() {
                break;
            }
        }
        if inward.len() > before && !self.established {
            self.established = true;
        }
        if self.established && self.progress == Progress::Open && self.has_expired() {
            self.progress = Progress::Failed(Failure::EXPIRED);
            inward.truncate(before);
        }
        used
    }

    /// Whether the session was resumed with a certificate that has expired since: nobody has looked at it again.
    fn has_expired(&self) -> bool {
        if self.any_date || self.connection.handshake_kind() != Some(HandshakeKind::Resumed) {
            return false;
        }
        let Some(certificate) = self.certificate() else { return false };
        let now = UnixTime::now().as_secs();
        names::not_after(certificate).is_ok_and(|not_after| u64::try_from(not_after).unwrap_or(0) < now)
    }

    /// Takes bytes for the client. Before the end of the handshake, and after the session has failed, they are dropped.
    pub fn send(&mut self, bytes: &[u8], outward: &mut Vec<u8>) -> Progress {
        let room = bytes.len() + (bytes.len() / RECORD_BYTES + 1) * RECORD_OVERHEAD;
        self.write(outward, room, |traffic, buffer| traffic.encrypt(bytes, buffer));
        self.progress
    }

    /// Says close_notify, if the handshake is over.
    pub fn close(&mut self, outward: &mut Vec<u8>) {
        self.write(outward, RECORD_OVERHEAD, |traffic, buffer| traffic.queue_close_notify(buffer));
    }

    fn write(
        &mut self,
        outward: &mut Vec<u8>,
        room: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) {
        if !self.established || matches!(self.progress, Progress::Failed(_)) {
            return;
        }
        loop {
            // What is in `input` has been looked at, and gives nothing without more.
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.input);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let written = encode(outward, room, |buffer| {
                        write(&mut traffic, buffer).map_err(|error| match error {
                            EncryptError::InsufficientSize(size) => Some(size.required_size),
                            EncryptError::EncryptExhausted => None,
                        })
                    });
                    // TLS 1.2 cannot change its keys, and they are good for some sixteen million records.
                    if !written {
                        self.progress = Progress::Failed(Failure::EXHAUSTED);
                    }
                    return;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode_handshake(&mut data, outward),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                _ => return,
            }
        }
    }

    /// Whether the handshake is over.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Whether it began with a ticket of an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The client's certificate in DER, verified, if it has one and the handshake is over.
    pub fn certificate(&self) -> Option<&[u8]> {
        if !self.established {
            return None;
        }
        self.connection.peer_certificates().and_then(|chain| chain.first()).map(|certificate| &**certificate)
    }

    /// The names in it.
    pub fn names(&self) -> Option<Names> {
        Names::read(self.certificate()?).ok()
    }

    /// The ALPN protocol agreed upon.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }
}

fn encode_handshake(data: &mut EncodeTlsData<'_, ServerConnectionData>, outward: &mut Vec<u8>) {
    // It has not been encoded before.
    encode(outward, 0, |buffer| {
        data.encode(buffer).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    });
}

/// Appends to `outward` what `write` writes into a buffer; it says how much room it needs if `room` is not enough. False if it
/// cannot.
fn encode(
    outward: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> bool {
    let start = outward.len();
    // Twice at most: the second time there is room.
    for _ in 0..2 {
        outward.resize(start + room, 0);
        match write(&mut outward[start..]) {
            Ok(written) => {
                outward.truncate(start + written);
                return true;
            }
            Err(Some(required)) => room = required,
            Err(None) => break,
        }
    }
    outward.truncate(start);
    false
}
