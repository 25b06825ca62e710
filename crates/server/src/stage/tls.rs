//! TLS of one connection.

use pantala_broker::{CertificateNames, Peer};
use pantala_tls::{NameError, Names, Session, UserNameFrom, names};

use super::{Learnt, Progress};
use crate::tls::TlsListener;

#[derive(Debug)]
pub(crate) struct Tls {
    session: Session,
    user_name_from: UserNameFrom,
    /// The handshake is over, and what it told has been passed on.
    established: bool,
}

impl Tls {
    pub(super) fn new(listener: &TlsListener) -> Self {
        Self { session: listener.session(), user_name_from: listener.user_name_from(), established: false }
    }

    pub(super) fn receive(
        &mut self,
        bytes: &mut [u8],
        inward: &mut Vec<u8>,
        outward: &mut Vec<u8>,
        learnt: &mut Learnt<'_>,
    ) -> Progress {
        let progress = self.session.receive(bytes, inward, outward);
        if !self.established && self.session.is_established() {
            self.established = true;
            learnt.counters.tls_handshakes += 1;
            learnt.counters.tls_handshakes_resumed += u64::from(self.session.is_resumed());
            if let Err(why) = self.introduce(learnt.peer) {
                // The handshake has looked at it already.
                inward.clear();
                learnt.counters.tls_failures += 1;
                return Progress::Failed(why);
            }
        }
        match progress {
            pantala_tls::Progress::Open => Progress::Open,
            pantala_tls::Progress::Ended => Progress::Ended,
            pantala_tls::Progress::Failed(failure) => {
                learnt.counters.tls_failures += 1;
                Progress::Failed(failure.as_str())
            }
        }
    }

    fn introduce(&self, peer: &mut Peer) -> Result<(), &'static str> {
        let Some(certificate) = self.session.certificate() else { return Ok(()) };
        let user_name = names::user_name(self.user_name_from, certificate).map_err(NameError::as_str)?;
        let names = Names::read(certificate).map_err(NameError::as_str)?;
        peer.user_name_by_certificate = user_name.map(String::into_boxed_str);
        let alternatives = names.subject_alternative_names.into_iter().map(String::into_boxed_str);
        peer.certificate = Some(Box::new(CertificateNames {
            subject: names.subject.into(),
            common_name: names.common_name.map(String::into_boxed_str),
            subject_alternative_names: alternatives.collect(),
        }));
        Ok(())
    }

    pub(super) fn send(&mut self, bytes: &[u8], outward: &mut Vec<u8>) -> Progress {
        match self.session.send(bytes, outward) {
            pantala_tls::Progress::Failed(failure) => Progress::Failed(failure.as_str()),
            _ => Progress::Open,
        }
    }

    pub(super) fn close(&mut self, outward: &mut Vec<u8>) {
        self.session.close(outward);
    }
}
