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

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pantala_broker::Peer;
use pantala_transport::address;
use pantala_transport::websocket::CloseCode;

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
pub(crate) const NOT_ALLOWED: &str = "clients of this address are not let in";

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
        (!self.may_forward(Some(address)) && !is_allowed(&self.transport, Some(address.ip()))).then_some(NOT_ALLOWED)
    }

    /// Whether a client at this address is let in.
    pub(crate) fn is_for(&self, address: Option<IpAddr>) -> bool {
        is_allowed(&self.transport, address)
    }

    /// Whether a socket's address is that of somebody who may yet tell another: see [`Stages::address_to_count`].
    #[inline]
    pub(crate) fn tells_address_later(&self, address: Option<SocketAddr>) -> bool {
        self.transport.proxy_protocol.is_some() || self.may_forward(address)
    }

    /// Whether an `X-Forwarded-For` of this address is believed.
    #[inline]
    fn may_forward(&self, address: Option<SocketAddr>) -> bool {
        self.transport.protocol != Protocol::Mqtt
            && self.transport.websocket.trusts(address.map(|address| address.ip()))
    }

    /// The stages of a new connection; None for plain MQTT.
    #[inline]
    pub(crate) fn stages(&self, address: Option<SocketAddr>) -> Option<Box<Stages>> {
        let transport = || Arc::clone(&self.transport);
        let proxy = self.transport.proxy_protocol.map(|_| Stage::Proxy(Proxy::new(transport())));
        // Where plain text is asked for, TLS is one of the choices; else nothing gets round it.
        let (chosen, tls) = match &self.tls {
            tls if self.transport.allow_plain_text => (tls.clone(), None),
            tls => (None, tls.as_ref()),
        };
        let tls = tls.map(|tls| Stage::Tls(Box::new(Tls::new(tls))));
        let last = match self.transport.protocol {
            Protocol::Mqtt => None,
            Protocol::WebSocket => Some(Stage::WebSocket(WebSocket::new(transport()))),
            Protocol::Any => Some(Stage::FirstBytes(Choice::new(transport(), chosen))),
        };
        let all = proxy.into_iter().chain(tls).chain(last);
        #[cfg(test)]
        let all = all.chain(std::iter::repeat_with(|| Stage::Scrambler(Default::default())).take(self.scrambled));
        let uncounted = self.tells_address_later(address);
        Stages::new(all.collect(), Peer { address, ..Peer::default() }, uncounted)
    }
}

/// Whether a client of this address is let in. One whose address nobody knows is, unless some are listed that are.
fn is_allowed(transport: &Transport, address: Option<IpAddr>) -> bool {
    let (allowed, denied) = (&transport.allow_addresses, &transport.deny_addresses);
    match address {
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
    /// What the log may want to know of a WebSocket.
    pub(crate) told: &'a mut Vec<Told>,
}

/// Something that happened to a WebSocket, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// The request was accepted, with this subprotocol.
    Accepted(&'static str),
    /// It was refused, in words.
    Refused(&'static str),
    /// The client has said Close, with this code.
    ClosedByClient(Option<u16>),
    /// We have said Close with this code, in words because of what the client did.
    Closed(u16, &'static str),
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
            Self::WebSocket(stage) => stage.receive(bytes, inward, outward, learnt),
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

    /// What is said last, before the socket is closed; in a WebSocket with this code.
    fn close(&mut self, code: CloseCode, outward: &mut Vec<u8>, told: &mut Vec<Told>) {
        match self {
            Self::Proxy(_) | Self::FirstBytes(_) => {}
            Self::Tls(stage) => stage.close(outward),
            Self::WebSocket(stage) => stage.close(code, outward, told),
            #[cfg(test)]
            Self::Scrambler(stage) => stage.send(b"bye", outward),
        }
    }

    /// Whether it may find that the client is at another address than this one.
    fn may_tell_address(&self, address: Option<SocketAddr>) -> bool {
        match self {
            Self::Proxy(_) => true,
            Self::FirstBytes(stage) => stage.may_tell_address(address),
            Self::WebSocket(stage) => stage.may_tell_address(address),
            Self::Tls(_) => false,
            #[cfg(test)]
            Self::Scrambler(_) => false,
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

/// The stages of one connection. An idle one has nothing but them.
#[derive(Debug)]
pub(crate) struct Stages {
    stages: List,
    /// None once the core has been told.
    found: Option<Box<Found>>,
    /// None while nothing waits.
    pending: Option<Box<Pending>>,
}

/// Stages in their order. Most connections with any have one, which needs no room of its own.
#[derive(Debug)]
enum List {
    One([Stage; 1]),
    Others(Vec<Stage>),
}

/// What stages have found out.
#[derive(Debug, Default)]
struct Found {
    peer: Peer,
    /// The client's address has not been counted, as a proxy has not told it yet.
    uncounted: bool,
}

/// Output that the socket has not taken.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Those of them that it has.
    written: usize,
}

impl List {
    fn new(mut stages: Vec<Stage>) -> Self {
        match stages.pop() {
            Some(stage) if stages.is_empty() => Self::One([stage]),
            last => {
                stages.extend(last);
                // There is room for four otherwise, for as long as the client is there.
                stages.shrink_to_fit();
                Self::Others(stages)
            }
        }
    }

    fn as_slice(&self) -> &[Stage] {
        match self {
            Self::One(stage) => stage,
            Self::Others(stages) => stages,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Stage] {
        match self {
            Self::One(stage) => stage,
            Self::Others(stages) => stages,
        }
    }

    /// Puts others in the place of the one with this index.
    fn replace(&mut self, index: usize, successors: Vec<Stage>) {
        let mut stages = match std::mem::replace(self, Self::Others(Vec::new())) {
            Self::One(stage) => stage.into(),
            Self::Others(stages) => stages,
        };
        stages.splice(index..=index, successors);
        *self = Self::new(stages);
    }
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
    /// What has happened since the log was told last.
    pub(crate) told: Vec<Told>,
}

impl Stages {
    fn new(stages: Vec<Stage>, peer: Peer, uncounted: bool) -> Option<Box<Self>> {
        if stages.is_empty() {
            return None;
        }
        let found = Some(Box::new(Found { peer, uncounted }));
        Some(Box::new(Self { stages: List::new(stages), found, pending: None }))
    }

    /// Whether to read from the socket.
    pub(crate) fn wants_input(&self) -> bool {
        self.pending().len() < PENDING_BYTES_MAX
    }

    /// No stage is left, and nothing waits: the connection is a plain one from now on.
    pub(crate) fn is_done(&self) -> bool {
        self.stages.as_slice().is_empty() && self.pending.is_none() && self.found.is_none()
    }

    /// Takes bytes from the socket. MQTT is in `scratch.inward` afterwards, answers are pending.
    pub(crate) fn receive(&mut self, bytes: &mut [u8], scratch: &mut Scratch) -> Progress {
        let Scratch { inward, outward, between, answer, counters, told, .. } = scratch;
        inward.clear();
        let (mut outcome, mut index, mut first) = (Progress::Open, 0, true);
        let mut unknown = Peer::default();
        while index < self.stages.as_slice().len() {
            let (before, rest) = self.stages.as_mut_slice().split_at_mut(index);
            let Some(stage) = rest.first_mut() else { break };
            let input = if first { &mut *bytes } else { inward.as_mut_slice() };
            if input.is_empty() {
                return outcome;
            }
            between.clear();
            answer.clear();
            let peer = self.found.as_deref_mut().map_or(&mut unknown, |found| &mut found.peer);
            let progress = stage.receive(input, between, answer, &mut Learnt { peer, counters, told });
            std::mem::swap(inward, between);
            first = false;
            if !answer.is_empty() {
                outward.clear();
                // Whoever cannot send will say so where it matters.
                let _ = send_through(before, answer, between, outward);
                keep(&mut self.pending, outward);
            }
            match progress {
                Progress::Done => {
                    let successors = stage.successors();
                    self.stages.replace(index, successors);
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

    /// The client's address, once, when it is known and nothing can change it any more, if it was not known from the start. Inside is
    /// None for a client whose address the proxy does not know.
    pub(crate) fn address_to_count(&mut self) -> Option<Option<SocketAddr>> {
        let found = self.found.as_deref_mut().filter(|found| found.uncounted)?;
        let address = found.peer.address;
        found.uncounted = self.stages.as_slice().iter().any(|stage| stage.may_tell_address(address));
        (!found.uncounted).then_some(address)
    }

    /// What the core is to be told about the client, once, when the first MQTT has come.
    pub(crate) fn introduction(&mut self) -> Option<Box<Peer>> {
        self.found.take().map(|found| Box::new(found.peer))
    }

    /// Makes output of `scratch.gathered` in `scratch.outward`.
    pub(crate) fn send(&mut self, scratch: &mut Scratch) -> Progress {
        let Scratch { outward, between, gathered, .. } = scratch;
        outward.clear();
        send_through(self.stages.as_mut_slice(), gathered, between, outward)
    }

    /// Adds the last words of all stages to what waits, the innermost first.
    pub(crate) fn close(&mut self, code: CloseCode, scratch: &mut Scratch) {
        let Scratch { outward, between, answer, told, .. } = scratch;
        for index in (0..self.stages.as_slice().len()).rev() {
            let (before, rest) = self.stages.as_mut_slice().split_at_mut(index);
            answer.clear();
            if let Some(stage) = rest.first_mut() {
                stage.close(code, answer, told);
            }
            if !answer.is_empty() {
                outward.clear();
                let _ = send_through(before, answer, between, outward);
                keep(&mut self.pending, outward);
            }
        }
    }

    /// What waits for the socket.
    pub(crate) fn pending(&self) -> &[u8] {
        self.pending.as_ref().and_then(|pending| pending.bytes.get(pending.written..)).unwrap_or_default()
    }

    /// The socket has taken `count` bytes of what waits.
    pub(crate) fn wrote(&mut self, count: usize) {
        if let Some(pending) = &mut self.pending {
            pending.written += count;
            if pending.written >= pending.bytes.len() {
                // An idle connection holds no buffer.
                self.pending = None;
            }
        }
    }

    /// Output that the socket would not take.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        keep(&mut self.pending, rest);
    }
}

/// Adds bytes to what waits.
fn keep(pending: &mut Option<Box<Pending>>, bytes: &[u8]) {
    if !bytes.is_empty() {
        pending.get_or_insert_default().bytes.extend_from_slice(bytes);
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
        assert!(size_of::<Stages>() <= 72, "{}", size_of::<Stages>());
        for protocol in [Protocol::WebSocket, Protocol::Any] {
            let transport = Transport { protocol, ..Transport::default() };
            let mut stages = Entry::new(transport, None).stages(None).expect("a stage");
            let mut request = *b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Protocol: mqtt\r\n\r\n";
            assert_eq!(stages.receive(&mut request, &mut Scratch::default()), Progress::Open);
            let is_open = matches!(stages.stages, List::One([Stage::WebSocket(WebSocket::Open(_))]));
            assert!(is_open, "{:?}", stages.stages);
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
