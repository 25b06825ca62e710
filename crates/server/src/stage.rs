//! What stands between the bytes of a socket and MQTT: none or more stages, the first one nearest to the socket.
//!
//! A stage does no I/O. It is given what came from the socket's side and appends what it makes of it to buffers that the
//! worker lends: one that goes inwards, to the next stage and at last to the core, and one that goes outwards, back
//! through the stages before it to the socket. Nothing is held between two turns but what a stage cannot do without (the
//! front of a record whose rest has not come) and what the socket has not taken.

mod first_bytes;
mod proxy;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;

use pantala_broker::Peer;
use pantala_transport::address;

use self::first_bytes::Choice;
use self::proxy::Proxy;
use self::tls::Tls;
use self::websocket::WebSocket;
use crate::config::{Protocol, Transport};
use crate::tls::TlsListener;

/// Most bytes of MQTT that are made into output before the socket takes them: so much may wait beyond it, and it is what one
/// write has.
pub(crate) const CHUNK_BYTES: usize = 65_536;
/// With so many answers of stages waiting, nothing more is read: a client that does not read cannot make them grow.
const PENDING_BYTES_MAX: usize = 2 * CHUNK_BYTES;

/// What is said of a client whose address is kept out.
const NOT_ALLOWED: &str = "clients of this address are not let in";

/// What the connections of one listener begin with.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) transport: Arc<Transport>,
    pub(crate) tls: Option<Arc<TlsListener>>,
    #[cfg(test)]
    pub(crate) scrambled: usize,
}

impl Entry {
    pub(crate) fn new(transport: Transport, tls: Option<Arc<TlsListener>>) -> Self {
        Self {
            transport: Arc::new(transport),
            tls,
            #[cfg(test)]
            scrambled: 0,
        }
    }

    /// Why a connection from this address is closed before a byte of it is read; None if it is not.
    #[inline]
    pub(crate) fn refusal(&self, address: Option<SocketAddr>) -> Option<&'static str> {
        // Who can open a Unix socket is let in, and what a proxy says of others is looked at later.
        let address = address?;
        if self.transport.proxy_protocol.is_some() {
            let is_trusted = address::contains(&self.transport.proxy_trusted, address.ip());
            return (!is_trusted).then_some("it is no trusted proxy");
        }
        // That of a proxy which tells by X-Forwarded-For is not the client's.
        let may_tell = self.transport.protocol != Protocol::Mqtt
            && address::contains(&self.transport.websocket.trusted, address.ip());
        (!may_tell && !is_allowed(&self.transport, Some(address))).then_some(NOT_ALLOWED)
    }

    /// The stages of a new connection; None for plain MQTT.
    #[inline]
    pub(crate) fn stages(&self, address: Option<SocketAddr>) -> Option<Box<Stages>> {
        let transport = || Arc::clone(&self.transport);
        let proxy = self.transport.proxy_protocol.map(|_| Stage::Proxy(Proxy::new(transport())));
        // On a shared port TLS is one of the choices.
        let tls = self.tls.as_ref().filter(|_| self.transport.protocol != Protocol::Any);
        let tls = tls.map(|tls| Stage::Tls(Box::new(Tls::new(tls))));
        let last = match self.transport.protocol {
            Protocol::Mqtt => None,
            Protocol::WebSocket => Some(Stage::WebSocket(WebSocket::new(transport()))),
            Protocol::Any => Some(Stage::FirstBytes(Choice::new(transport(), self.tls.clone()))),
        };
        let all = proxy.into_iter().chain(tls).chain(last);
        #[cfg(test)]
        let all = all.chain(std::iter::repeat_with(|| Stage::Scrambler(Default::default())).take(self.scrambled));
        let mut stages: Vec<Stage> = all.collect();
        stages.shrink_to_fit();
        Stages::new(stages, address)
    }
}

/// Whether a client of this address is let in. One whose address nobody knows is, unless some are listed that are.
fn is_allowed(transport: &Transport, address: Option<SocketAddr>) -> bool {
    let (allowed, denied) = (&transport.allow_addresses, &transport.deny_addresses);
    match address.map(|address| address.ip()) {
        Some(address) => {
            !address::contains(denied, address) && (allowed.is_empty() || address::contains(allowed, address))
        }
        None => allowed.is_empty(),
    }
}

/// One of the stages.
#[derive(Debug)]
pub(crate) enum Stage {
    /// A PROXY header.
    Proxy(Proxy),
    /// TLS. Few connections have it and WebSocket, so neither pays for the other's size.
    Tls(Box<Tls>),
    /// Whatever the first bytes ask for.
    FirstBytes(Choice),
    /// WebSocket.
    WebSocket(WebSocket),
    #[cfg(test)]
    Scrambler(scrambler::Scrambler),
}

/// How a stage is doing after it has been given bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on.
    Open,
    /// Its work is done: what follows passes as it is.
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
#[derive(Debug, Clone, Copy, Default)]
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

    /// Adds those of another worker.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { tls_handshakes, tls_handshakes_resumed, tls_failures } = other;
        self.tls_handshakes += tls_handshakes;
        self.tls_handshakes_resumed += tls_handshakes_resumed;
        self.tls_failures += tls_failures;
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
            Self::Proxy(stage) => stage.receive(bytes, inward, learnt.peer),
            Self::Tls(stage) => stage.receive(bytes, inward, outward, learnt),
            Self::FirstBytes(stage) => stage.receive(bytes, inward, learnt.peer),
            Self::WebSocket(stage) => stage.receive(bytes, inward, outward, learnt.peer),
            #[cfg(test)]
            Self::Scrambler(stage) => stage.receive(bytes, inward, outward),
        }
    }

    /// Takes bytes for the client, never none. A stage that has not come so far that the client could read them drops them.
    fn send(&mut self, bytes: &[u8], outward: &mut Vec<u8>) -> Progress {
        match self {
            // No client speaks MQTT before these are gone.
            Self::Proxy(_) | Self::FirstBytes(_) => {}
            Self::Tls(stage) => return stage.send(bytes, outward),
            Self::WebSocket(stage) => stage.send(bytes, outward),
            #[cfg(test)]
            Self::Scrambler(stage) => stage.send(bytes, outward),
        }
        Progress::Open
    }

    /// What is said last, before the socket is closed.
    fn close(&mut self, outward: &mut Vec<u8>) {
        match self {
            Self::Proxy(_) | Self::FirstBytes(_) => {}
            Self::Tls(stage) => stage.close(outward),
            Self::WebSocket(stage) => stage.close(outward),
            #[cfg(test)]
            Self::Scrambler(stage) => stage.send(b"bye", outward),
        }
    }

    /// What takes its place when it is done.
    fn successors(&mut self) -> Vec<Self> {
        match self {
            Self::FirstBytes(stage) => stage.successors(),
            _ => Vec::new(),
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
    pub(crate) fn new(mut stages: Vec<Stage>, address: Option<SocketAddr>) -> Option<Box<Self>> {
        if stages.is_empty() {
            return None;
        }
        // There is room for four otherwise, for as long as the client is there.
        stages.shrink_to_fit();
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
                Progress::Done => {
                    let successors = stage.successors();
                    self.stages.splice(index..=index, successors);
                    self.stages.shrink_to_fit();
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle WebSocket connection has besides what every one has.
    #[test]
    fn stages_are_small() {
        assert!(size_of::<Stage>() <= 56, "{}", size_of::<Stage>());
        for protocol in [Protocol::WebSocket, Protocol::Any] {
            let transport = Transport { protocol, ..Transport::default() };
            let mut stages = Entry::new(transport, None).stages(None).expect("a stage");
            let mut request = *b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Protocol: mqtt\r\n\r\n";
            assert_eq!(stages.receive(&mut request, &mut Scratch::default()), Progress::Open);
            let is_open = matches!(stages.stages[..], [Stage::WebSocket(WebSocket::Open(_))]);
            assert!(is_open && stages.stages.capacity() == 1, "{:?}", stages.stages);
        }
    }

    /// A stage that refuses leaves nothing for the core to act upon.
    #[test]
    fn what_is_refused_does_not_go_on() {
        let deny = Transport {
            protocol: Protocol::Any,
            deny_addresses: ["192.0.2.7".parse().expect("an address")].into(),
            proxy_protocol: Some(pantala_transport::proxy::Versions::Any),
            ..Transport::default()
        };
        for begin in ["PROXY TCP4 192.0.2.7 10.0.0.1 1 1\r\n", "QUIT\r\n"] {
            let mut stages = Entry::new(deny.clone(), None).stages(None).expect("stages");
            let mut scratch = Scratch::default();
            let mut bytes = [begin.as_bytes(), b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a"].concat();
            assert!(matches!(stages.receive(&mut bytes, &mut scratch), Progress::Failed(_)));
            assert_eq!(scratch.inward, b"");
        }
        let own = Transport { proxy_protocol: None, ..deny };
        let address = Some("192.0.2.7:1".parse().expect("an address"));
        let mut stages = Entry::new(own, None).stages(address).expect("stages");
        let mut scratch = Scratch::default();
        assert_eq!(stages.receive(&mut [0x10, 0x0d], &mut scratch), Progress::Failed(NOT_ALLOWED));
        assert_eq!(scratch.inward, b"");
    }
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

        pub(crate) fn send(&mut self, bytes: &[u8], outward: &mut Vec<u8>) {
            outward.extend(bytes.iter().map(|byte| !byte));
        }
    }
}
