//! What stands between the bytes of a socket and MQTT: none or more stages, the first one nearest to the socket.
//!
//! A stage does no I/O. It is given what came from the socket's side and appends what it makes of it to buffers that the
//! worker lends: one that goes inwards, to the next stage and at last to the core, and one that goes outwards, back
//! through the stages before it to the socket. Nothing is held between two turns but what a stage cannot do without (the
//! front of a record whose rest has not come) and what the socket has not taken.

use std::net::SocketAddr;
use std::sync::Arc;

use pantala_broker::{CertificateNames, Peer};
use pantala_tls::{NameError, Names, Session, UserNameFrom, names};

use crate::tls::TlsListener;

/// Most bytes of MQTT that are made into output before the socket takes them: so much may wait beyond it, and it is what one
/// write has.
pub(crate) const CHUNK_BYTES: usize = 65_536;
/// With so many answers of stages waiting, nothing more is read: a client that does not read cannot make them grow.
const PENDING_BYTES_MAX: usize = 2 * CHUNK_BYTES;

/// What the connections of one listener begin with.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) tls: Option<Arc<TlsListener>>,
    #[cfg(test)]
    pub(crate) scrambled: usize,
}

impl Entry {
    pub(crate) fn new(tls: Option<Arc<TlsListener>>) -> Self {
        Self {
            tls,
            #[cfg(test)]
            scrambled: 0,
        }
    }

    /// The stages of a new connection; None for plain MQTT.
    #[inline]
    pub(crate) fn stages(&self, address: Option<SocketAddr>) -> Option<Box<Stages>> {
        #[cfg(test)]
        if self.scrambled > 0 {
            let scrambler = || Stage::Scrambler(scrambler::Scrambler::default());
            return Stages::new(std::iter::repeat_with(scrambler).take(self.scrambled).collect(), address);
        }
        let tls = self.tls.as_ref()?;
        Stages::new(vec![Stage::Tls(TlsStage::new(tls))], address)
    }
}

/// One of the stages.
#[derive(Debug)]
pub(crate) enum Stage {
    Tls(TlsStage),
    #[cfg(test)]
    Scrambler(scrambler::Scrambler),
}

/// How a stage is doing after it has been given bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on.
    Open,
    /// Its work is done: what follows passes as it is.
    #[allow(dead_code, reason = "TLS stays to the end; a header in front of it would not")]
    Done,
    /// The client has ended the stream as it should; nothing more will come.
    Ended,
    /// The connection is of no use: in words for the log. Last words are in the output.
    Failed(&'static str),
}

/// What stages find out.
pub(crate) struct Learnt<'a> {
    pub(crate) peer: &'a mut Peer,
    pub(crate) counters: &'a mut StageCounters,
}

/// What the stages of one worker count.
#[derive(Debug, Default)]
pub(crate) struct StageCounters {
    /// TLS handshakes that came to their end.
    pub(crate) tls_handshakes: u64,
    /// Those of them that resumed an earlier session.
    pub(crate) tls_handshakes_resumed: u64,
    /// TLS connections that failed, in the handshake or later.
    pub(crate) tls_failures: u64,
}

impl StageCounters {
    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("tls_handshakes", self.tls_handshakes),
            ("tls_handshakes_resumed", self.tls_handshakes_resumed),
            ("tls_failures", self.tls_failures),
        ]
        .into_iter()
    }
}

impl Stage {
    /// Takes bytes from the socket's side, never none. What is behind them goes to `inward`, answers to `outward`, and what
    /// it learns about the client to `learnt`, before the first byte goes inwards.
    fn receive(
        &mut self,
        bytes: &mut [u8],
        inward: &mut Vec<u8>,
        outward: &mut Vec<u8>,
        learnt: &mut Learnt<'_>,
    ) -> Progress {
        match self {
            Self::Tls(stage) => stage.receive(bytes, inward, outward, learnt),
            #[cfg(test)]
            Self::Scrambler(stage) => stage.receive(bytes, inward, outward),
        }
    }

    /// Takes bytes for the client, never none. A stage that has not come so far that the client could read them drops them.
    fn send(&mut self, bytes: &[u8], outward: &mut Vec<u8>) -> Progress {
        match self {
            Self::Tls(stage) => stage.send(bytes, outward),
            #[cfg(test)]
            Self::Scrambler(stage) => stage.send(bytes, outward),
        }
    }

    /// What is said last, before the socket is closed.
    fn close(&mut self, outward: &mut Vec<u8>) {
        match self {
            Self::Tls(stage) => stage.session.close(outward),
            #[cfg(test)]
            Self::Scrambler(stage) => drop(stage.send(b"bye", outward)),
        }
    }
}

/// TLS of one connection.
#[derive(Debug)]
pub(crate) struct TlsStage {
    session: Session,
    user_name_from: UserNameFrom,
    /// The handshake is over, and what it told has been passed on.
    established: bool,
}

impl TlsStage {
    pub(crate) fn new(listener: &TlsListener) -> Self {
        Self { session: listener.session(), user_name_from: listener.user_name_from(), established: false }
    }

    fn receive(
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
                // The handshake has looked at it already, unless the rule has changed since.
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
        peer.certificate = Some(Box::new(CertificateNames {
            subject: names.subject.into(),
            common_name: names.common_name.map(String::into_boxed_str),
            subject_alternative_names: names
                .subject_alternative_names
                .into_iter()
                .map(String::into_boxed_str)
                .collect(),
        }));
        Ok(())
    }

    fn send(&mut self, bytes: &[u8], outward: &mut Vec<u8>) -> Progress {
        match self.session.send(bytes, outward) {
            pantala_tls::Progress::Failed(failure) => Progress::Failed(failure.as_str()),
            _ => Progress::Open,
        }
    }
}

/// The stages of one connection.
#[derive(Debug)]
pub(crate) struct Stages {
    stages: Vec<Stage>,
    /// What they have found out; None once the core has been told.
    peer: Option<Box<Peer>>,
    /// Output that the socket has not taken.
    pending: Vec<u8>,
    /// Bytes of `pending` that it has.
    written: usize,
}

/// Buffers that a worker lends to the stages of one connection after the other.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// What has come through.
    pub(crate) inward: Vec<u8>,
    /// What is to be written.
    pub(crate) outward: Vec<u8>,
    /// On its way from one stage to the next.
    between: Vec<u8>,
    /// What a stage answers.
    answer: Vec<u8>,
    /// Output of the core, put together.
    pub(crate) gathered: Vec<u8>,
    pub(crate) counters: StageCounters,
}

impl Stages {
    pub(crate) fn new(stages: Vec<Stage>, address: Option<SocketAddr>) -> Option<Box<Self>> {
        if stages.is_empty() {
            return None;
        }
        let peer = Some(Box::new(Peer { address, ..Peer::default() }));
        Some(Box::new(Self { stages, peer, pending: Vec::new(), written: 0 }))
    }

    /// Whether to read from the socket.
    pub(crate) fn wants_input(&self) -> bool {
        self.pending.len() - self.written < PENDING_BYTES_MAX
    }

    /// No stage is left, and nothing waits: the connection is a plain one from now on.
    pub(crate) fn is_done(&self) -> bool {
        self.stages.is_empty() && self.pending.is_empty() && self.peer.is_none()
    }

    /// Takes bytes from the socket. MQTT is in `scratch.inward` afterwards, answers are pending.
    pub(crate) fn receive(&mut self, bytes: &mut [u8], scratch: &mut Scratch) -> Progress {
        let Scratch { inward, outward, between, answer, counters, .. } = scratch;
        inward.clear();
        let (mut outcome, mut index, mut first) = (Progress::Open, 0, true);
        let mut unknown = Peer::default();
        while index < self.stages.len() {
            let (before, rest) = self.stages.split_at_mut(index);
            let Some(stage) = rest.first_mut() else { break };
            let input = if first { &mut *bytes } else { inward.as_mut_slice() };
            if input.is_empty() {
                return outcome;
            }
            between.clear();
            answer.clear();
            let peer = self.peer.as_deref_mut().unwrap_or(&mut unknown);
            let progress = stage.receive(input, between, answer, &mut Learnt { peer, counters });
            std::mem::swap(inward, between);
            first = false;
            if !answer.is_empty() {
                outward.clear();
                // Whoever cannot send will say so where it matters.
                let _ = send_through(before, answer, between, outward);
                self.pending.extend_from_slice(outward);
            }
            match progress {
                Progress::Done => drop(self.stages.remove(index)),
                Progress::Open => index += 1,
                // What came before its end goes on.
                Progress::Ended | Progress::Failed(_) => {
                    if outcome == Progress::Open || matches!(progress, Progress::Failed(_)) {
                        outcome = progress;
                    }
                    index += 1;
                }
            }
        }
        if first {
            inward.extend_from_slice(bytes);
        }
        outcome
    }

    /// What the core is to be told about the client, once, when the first MQTT has come.
    pub(crate) fn introduction(&mut self) -> Option<Box<Peer>> {
        self.peer.take()
    }

    /// Makes output of `scratch.gathered` in `scratch.outward`.
    pub(crate) fn send(&mut self, scratch: &mut Scratch) -> Progress {
        let Scratch { outward, between, gathered, .. } = scratch;
        outward.clear();
        send_through(&mut self.stages, gathered, between, outward)
    }

    /// Adds the last words of all stages to what waits, the innermost first.
    pub(crate) fn close(&mut self, scratch: &mut Scratch) {
        let Scratch { outward, between, answer, .. } = scratch;
        for index in (0..self.stages.len()).rev() {
            let (before, rest) = self.stages.split_at_mut(index);
            answer.clear();
            if let Some(stage) = rest.first_mut() {
                stage.close(answer);
            }
            if !answer.is_empty() {
                outward.clear();
                let _ = send_through(before, answer, between, outward);
                self.pending.extend_from_slice(outward);
            }
        }
    }

    /// What waits for the socket.
    pub(crate) fn pending(&self) -> &[u8] {
        self.pending.get(self.written..).unwrap_or_default()
    }

    /// The socket has taken `count` bytes of what waits.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.pending.len() {
            // An idle connection holds no buffer.
            (self.pending, self.written) = (Vec::new(), 0);
        }
    }

    /// Output that the socket would not take.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.pending.extend_from_slice(rest);
    }
}

/// Sends bytes out through `stages`, from the last to the first; appends what comes out to `outward`.
fn send_through(stages: &mut [Stage], bytes: &mut Vec<u8>, between: &mut Vec<u8>, outward: &mut Vec<u8>) -> Progress {
    let mut outcome = Progress::Open;
    for stage in stages.iter_mut().rev() {
        between.clear();
        if !bytes.is_empty()
            && let failed @ Progress::Failed(_) = stage.send(bytes, between)
        {
            outcome = failed;
        }
        std::mem::swap(bytes, between);
    }
    outward.append(bytes);
    outcome
}

/// A stage for tests: it wants a knock, answers it, and turns the bits of all that follows.
#[cfg(test)]
pub(crate) mod scrambler {
    use super::Progress;

    pub(crate) const KNOCK: u8 = 0xaa;
    pub(crate) const ANSWER: u8 = 0xbb;
    /// Instead of MQTT: the stage fails.
    pub(crate) const WRONG: u8 = 0xee;

    #[derive(Debug, Default)]
    pub(crate) struct Scrambler {
        open: bool,
    }

    impl Scrambler {
        pub(crate) fn receive(&mut self, bytes: &mut [u8], inward: &mut Vec<u8>, outward: &mut Vec<u8>) -> Progress {
            for byte in bytes {
                match *byte {
                    KNOCK if !self.open => {
                        self.open = true;
                        outward.push(ANSWER);
                    }
                    WRONG if !self.open => return Progress::Failed("a wrong knock"),
                    byte => inward.push(!byte),
                }
            }
            Progress::Open
        }

        pub(crate) fn send(&mut self, bytes: &[u8], outward: &mut Vec<u8>) -> Progress {
            outward.extend(bytes.iter().map(|byte| !byte));
            Progress::Open
        }
    }
}
